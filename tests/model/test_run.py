"""`ingle run` with a server of its own and a real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.command import command, environment, ingle
from tests.cli.terminal import Terminal
from tests.e2e.conftest import until

pytestmark = pytest.mark.model


@pytest.fixture
def terminal(tmp_path: Path, model_path: Path) -> Iterator[Terminal]:
    """A conversation that has begun."""
    opened = Terminal(
        tmp_path, command("run", str(model_path), "--temperature", "0"), environment(tmp_path)
    )
    try:
        opened.until("/help for help\n>>>", 60)
        yield opened
    finally:
        opened.close()


def servers(model_path: Path) -> list[psutil.Process]:
    """Those that `run` has started for this model, and their engines."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "serve" in words and str(model_path) in words and "--host=127.0.0.1" in words:
            found += [process, *process.children(recursive=True)]
    return found


def test_one_answer_leaves_nothing_behind(tmp_path: Path, model_path: Path) -> None:
    words = ("run", str(model_path), "--temperature", "0", "--max-tokens", "8", "--json")
    done = ingle(tmp_path, *words, piped="Say hello.")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["content"] and told["completion_tokens"] <= 8
    name = model_path.name.removesuffix(".gguf")
    assert done.stderr == f"loading {name} for this conversation\n"
    assert servers(model_path) == []


def test_what_is_too_long_is_refused_with_the_way_out(tmp_path: Path, model_path: Path) -> None:
    done = ingle(tmp_path, "run", str(model_path), "--ctx", "512", piped="long " * 1000)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: This model's maximum context length is 512 tokens.")
    assert last.endswith("--ctx TOKENS sets it, up to 8192 for this model.")


def test_a_conversation_uses_what_was_computed(terminal: Terminal, model_path: Path) -> None:
    name = model_path.name.removesuffix(".gguf")
    screen = terminal.until(f"{name}; /help for help")
    assert f"loading {name} for this conversation" in screen
    terminal.say("/set max_tokens 8")
    terminal.say("Say hello.")
    terminal.until("first after")
    terminal.say("Again, please.")
    terminal.until(lambda screen: screen.count("first after") == 2)
    terminal.press("C-d")
    assert terminal.exit_code() == 0
    assert servers(model_path) == []


def test_ctrl_c_stops_the_answer_not_the_server(terminal: Terminal, model_path: Path) -> None:
    question = "Write a very long story about a cat and a dog."
    terminal.say(question)
    terminal.until(lambda screen: len(screen.partition(f"{question}\n")[2].split()) > 8)
    terminal.press("C-c")
    terminal.until("stopped, first after")
    assert servers(model_path)
    terminal.say("/set max_tokens 4")
    terminal.say("And then?")
    terminal.until("cut off at its limit")


def test_its_server_ends_with_it_however_that_ends(tmp_path: Path, model_path: Path) -> None:
    words = command("run", str(model_path), "Write a very long story.")
    with subprocess.Popen(
        words,
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        started = servers(model_path)
        assert len(started) >= 2
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: not any(one.is_running() for one in started), 20)
