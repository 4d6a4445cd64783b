"""A real terminal, as tmux draws it: keys in, what stands on the screen out."""

from __future__ import annotations

import itertools
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

_SECONDS = 20.0
_LONG = 2000
_NUMBERS = itertools.count()


class Terminal:
    """Runs one command. Closing it ends whatever still runs there."""

    def __init__(
        self, folder: Path, words: list[str], environ: Mapping[str, str], *, columns: int = 80
    ) -> None:
        if shutil.which("tmux") is None:
            pytest.skip("tmux is missing; on Debian: apt install tmux")
        number = next(_NUMBERS)
        self._socket = str(folder / f"tmux{number}")
        self.status_file = folder / f"status{number}"
        wanted = {**environ, "TERM": "tmux-256color", "LANG": "C.UTF-8"}
        wanted.pop("COLUMNS", None)
        wanted.pop("NO_COLOR", None)
        line = f"{shlex.join(words)}; echo $? > {shlex.quote(str(self.status_file))}; exec cat"
        command = ["env", "-i", *(f"{name}={value}" for name, value in wanted.items())]
        self._tmux(
            *("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", "24"),
            *("-c", str(folder), *command, "sh", "-c", line),
        )
        self._tmux("set-option", "-g", "history-limit", str(_LONG))

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """By tmux's names: Enter, C-c, M-Enter, Up."""
        self._tmux("send-keys", *keys)

    def say(self, text: str) -> None:
        self.type(text)
        self.press("Enter")

    def paste(self, text: str) -> None:
        """As a terminal pastes, between marks where the program asks for them."""
        self._tmux("set-buffer", "--", text)
        self._tmux("paste-buffer", "-p")

    def resize(self, columns: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", "24")

    def screen(self) -> str:
        """All lines so far; those that were wrapped are whole again."""
        return self._tmux("capture-pane", "-p", "-J", "-S", f"-{_LONG}")

    def coloured(self) -> str:
        return self._tmux("capture-pane", "-p", "-e", "-J", "-S", f"-{_LONG}")

    def until(self, holds: str | Callable[[str], bool], seconds: float = _SECONDS) -> str:
        """The screen, once it holds this text or this is true of it."""
        seen = (lambda screen: holds in screen) if isinstance(holds, str) else holds
        deadline = time.monotonic() + seconds
        while not seen(screen := self.screen()):
            assert time.monotonic() < deadline, f"not on the screen:\n{screen}"
            time.sleep(0.05)
        return screen

    def exit_code(self) -> int:
        """Once the command has ended."""
        self.until(lambda _: self.status_file.exists() and bool(self.status_file.read_text()))
        return int(self.status_file.read_text())

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True)

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-S", self._socket, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout
