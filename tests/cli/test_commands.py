"""The command as a user runs it: a process, its exit code and what it writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gguf_files import gguf, write_gguf

DEFAULT = "smollm2-135m-instruct"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield int(sock.getsockname()[1])


def ingle(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("INGLE_")}
    environ |= {"HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"} | variables
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        environ.pop(name, None)
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-m", "server", *words],
        cwd=home,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def refusal(home: Path, *words: str, **variables: str) -> str:
    done = ingle(home, *words, **variables)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, "one line, no traceback"
    return done.stderr.removeprefix("error: ").strip()


def test_help_names_the_commands(home: Path) -> None:
    done = ingle(home, "--help")
    assert done.returncode == 0
    for command in ("serve", "pull", "list", "version"):
        assert command in done.stdout


def test_help_imports_nothing_heavy() -> None:
    heavy = {"fastapi", "uvicorn", "pydantic", "llama_cpp", "httpx2", "numpy", "psutil"}
    code = f"import sys, server.cli; print({heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("words", [("version",), ("--version",), ("-V",)])
def test_versions(home: Path, words: tuple[str, ...]) -> None:
    lines = ingle(home, *words).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ingle", "llama-cpp-python", "python"]


def test_an_unknown_command_is_a_usage_error(home: Path) -> None:
    assert ingle(home, "sreve").returncode == 2


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


def test_list_shows_the_catalogue_and_other_files(home: Path) -> None:
    folder = home / ".local/share/ingle/models"
    folder.mkdir(parents=True)
    write_gguf(folder / "mine.gguf")
    write_gguf(folder / "broken.gguf", b"GGUF")
    table = ingle(home, "list").stdout
    assert DEFAULT in table
    assert "Apache-2.0" in table
    assert f"{folder}/broken.gguf is truncated" in table

    rows = {row["name"]: row for row in json.loads(ingle(home, "list", "--json").stdout)}
    assert not rows[DEFAULT]["present"]
    assert rows[DEFAULT]["verified"]
    assert (rows["mine"]["quantisation"], rows["mine"]["context"]) == ("Q4_1", 2048)
    assert rows["mine"]["problem"] is None
    assert "truncated" in rows["broken"]["problem"]


def test_pull_of_an_unknown_model_is_refused(home: Path) -> None:
    assert refusal(home, "pull", "qwen3-5b").startswith(
        "unknown model qwen3-5b: did you mean qwen3"
    )


def test_pull_says_why_it_cannot(home: Path) -> None:
    done = ingle(home, "pull", "qwen3-0.6b", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "error: cannot fetch https://huggingface.co/Qwen"
    )


def test_a_model_that_is_here_is_not_fetched(home: Path) -> None:
    folder = home / "models"
    folder.mkdir()
    write_gguf(folder / "Qwen3-0.6B-Q8_0.gguf")
    done = ingle(home, "pull", "qwen3-0.6b", "--models-dir", str(folder), HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "qwen3-0.6b is already here" in done.stdout
