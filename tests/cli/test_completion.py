"""What a shell completes: in bash itself, and by what it asks for in the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import environment, ingle
from tests.cli.terminal import Terminal
from tests.gguf_files import write_gguf


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With the command on the path, and two models."""
    script = tmp_path / "bin/ingle"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -P -W error -m server "$@"\n')
    script.chmod(0o755)
    folder = tmp_path / ".local/share/ingle/models"
    folder.mkdir(parents=True)
    for name in ("mine.gguf", "tiny:1b.gguf"):
        write_gguf(folder / name)
    return tmp_path


def completed(home: Path, line: str) -> list[str]:
    """What bash would offer in place of the last word."""
    source = f"""
        source <(ingle completion bash)
        COMP_LINE={line!r}
        COMP_POINT=${{#COMP_LINE}}
        _ingle_completion ingle
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return run_in(home, "bash", "-c", source).stdout.split()


def run_in(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        words, cwd=home, env=with_command(home), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done


def with_command(home: Path) -> dict[str, str]:
    environ = environment(home)
    return environ | {"PATH": f"{home}/bin{os.pathsep}{environ['PATH']}"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_models(home: Path) -> None:
    assert completed(home, "ingle co") == ["completion", "config"]
    assert completed(home, "ingle config sh") == ["show"]
    assert "--max-tokens" in completed(home, "ingle run x --max")
    assert completed(home, "ingle run mi") == ["mine"]
    assert "qwen3-4b" in completed(home, "ingle pull qwen3-")
    assert completed(home, "ingle completion z") == ["zsh"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_gets_what_follows_a_colon(home: Path) -> None:
    assert completed(home, "ingle run tiny") == ["tiny:1b"]
    assert completed(home, "ingle run tiny:1") == ["1b"]


@pytest.mark.parametrize("command", ["rm", "run", "serve", "show", "tune", "load", "stop"])
def test_models_are_completed_wherever_one_is_named(home: Path, command: str) -> None:
    words = {
        "_INGLE_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": f"ingle {command} ",
    }
    offered = [line.split("\t")[0] for line in ingle(home, **words).stdout.splitlines()]
    assert {"mine", "tiny:1b"} <= set(offered)
    assert ("qwen3-4b" in offered) == (command != "rm"), "what is not here is not removed"


def test_a_wrong_settings_file_breaks_no_completion(home: Path) -> None:
    (home / "ingle.toml").write_text("prot = 1")
    words = {"_INGLE_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = ingle(home, **words, _TYPER_COMPLETE_ARGS="ingle run ")
    assert "Traceback" not in done.stderr and "prot" not in done.stdout


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is missing; apt install fish")
def test_fish_completes(home: Path) -> None:
    source = "source (ingle completion fish | psub); complete -C 'ingle run tiny:1'"
    done = run_in(home, "fish", "-c", source)
    assert done.stdout == "tiny:1b\there\n"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is missing; apt install zsh")
def test_zsh_completes_from_a_file_on_its_path(home: Path) -> None:
    (home / "functions").mkdir()
    (home / "functions/_ingle").write_text(ingle(home, "completion", "zsh").stdout)
    terminal = Terminal(home, ["zsh", "-f"], with_command(home))
    try:
        terminal.say(
            "fpath=(~/functions $fpath); autoload -U compinit; compinit -u -D; echo re''ady"
        )
        terminal.until("\nready")
        terminal.type("ingle run tiny")
        terminal.press("Tab")
        terminal.until("ingle run tiny:1b")
    finally:
        terminal.close()


def test_another_shell_is_a_usage_error(home: Path) -> None:
    assert ingle(home, "completion", "csh").returncode == 2
