"""The command as a user runs it: a process, its exit code and what it writes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import ingle, refusal
from tests.gguf_files import gguf, write_gguf

DEFAULT = "smollm2-135m-instruct"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield int(sock.getsockname()[1])


def test_help_names_the_commands(home: Path) -> None:
    done = ingle(home, "--help")
    assert done.returncode == 0
    wanted = "serve run pull list ps show rm load stop bench tune doctor config completion version"
    for command in wanted.split():
        assert f" {command} " in done.stdout


def test_help_imports_nothing_heavy() -> None:
    heavy = {"fastapi", "uvicorn", "pydantic", "llama_cpp", "httpx2", "numpy", "psutil"}
    heavy |= {"prompt_toolkit", "msgspec", "jinja2", "asyncio"}
    code = f"import sys, server.cli; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("words", [("version",), ("--version",), ("-V",)])
def test_versions(home: Path, words: tuple[str, ...]) -> None:
    lines = ingle(home, *words).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ingle", "llama-cpp-python", "python"]


def test_versions_in_json(home: Path) -> None:
    told = json.loads(ingle(home, "version", "--json").stdout)
    assert list(told) == ["ingle", "llama-cpp-python", "python"]


def test_an_unknown_command_is_a_usage_error(home: Path) -> None:
    done = ingle(home, "sreve")
    assert done.returncode == 2
    assert "Did you mean 'serve'?" in done.stderr


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (("--port", "http"), "--port http is not valid: port is the TCP port"),
        (("--ctx", "1"), "--ctx 1 is not valid: ctx is the context"),
        (("--slots", "1000"), "--slots 1000 is not valid: slots is"),
        (("--host", "0.0.0.0"), "--host 0.0.0.0 opens the server to the network"),
        (("--host", "not an address"), "--host not an address is not an address"),
        (("--host", "192.0.2.1", "--api-key", "k"), "192.0.2.1 is not an address of this machine"),
        (("--config", "none.toml"), "the configuration file none.toml does not exist"),
        (("smolm2",), f"unknown model smolm2: did you mean {DEFAULT}"),
        (("./none.gguf",), "{home}/none.gguf does not exist; check the path"),
    ],
)
def test_serve_refuses_in_one_line(home: Path, words: tuple[str, ...], start: str) -> None:
    extra = () if "--port" in words else ("--port", str(free_port()))
    message = refusal(home, "serve", *words, *extra)
    assert message.startswith(start.format(home=home))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def test_a_damaged_model_is_refused(home: Path) -> None:
    path = write_gguf(home / "m.gguf", gguf()[:-100])
    message = refusal(home, "serve", str(path), "--port", str(free_port()))
    assert message.startswith(f"{path} is truncated: tensor ")
    assert message.endswith("; fetch or copy it again")


def test_a_busy_port_names_the_user_and_another(home: Path, busy_port: int) -> None:
    message = refusal(home, "serve", "--port", str(busy_port))
    assert message.startswith(f"port {busy_port} is in use")
    assert "; stop the other program or pass --port " in message


def test_settings_of_every_place_reach_serve(home: Path, busy_port: int) -> None:
    assert refusal(home, "serve", INGLE_PROT="1").startswith("unknown variable INGLE_PROT")
    (home / "ingle.toml").write_text(f"port = {busy_port}")
    assert refusal(home, "serve").startswith(f"port {busy_port} is in use")
    (home / "ingle.toml").write_text("prot = 1")
    assert "unknown key prot in ingle.toml (did you mean port?)" in refusal(home, "serve")
