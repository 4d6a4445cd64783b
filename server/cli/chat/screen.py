"""What an answer looks like: dim where the model thinks, with figures after it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from .conversation import Answer

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_THINKS, _ANSWERS = "<think>\n", "\n</think>\n"


class Screen:
    """Thoughts go to terminals alone, and not there with `hide_thinking`.

    Where there are no styles, they stand between tags.
    """

    def __init__(self, stream: TextIO | None = None, *, hide_thinking: bool = False) -> None:
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._styled = self._terminal and not os.environ.get("NO_COLOR")
        self._hidden = hide_thinking or not self._terminal
        self._thinking = False
        self._at_start = True

    def piece(self, text: str, thinking: bool) -> None:
        if thinking and self._hidden:
            return
        if thinking != self._thinking:
            self._turn(thinking)
        self._write(printable(text) if self._terminal else text)

    def end(self) -> None:
        """The answer is complete, or stopped."""
        if self._thinking:
            self._write(_PLAIN if self._styled else _ANSWERS)
            self._thinking = False
        if not self._at_start:
            self._write("\n")
        self._at_start = True

    def note(self, text: str) -> None:
        """A line that is not the model's."""
        self._write(f"{_DIM}{text}{_PLAIN}\n" if self._styled else f"{text}\n")

    def _turn(self, thinking: bool) -> None:
        if self._styled:
            self._write(_DIM if thinking else f"{_PLAIN}\n\n")
        else:
            self._write(_THINKS if thinking else _ANSWERS)
        self._thinking = thinking

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
        self._at_start = text.endswith("\n")


def figures(answer: Answer) -> str:
    """One line: 42 tokens, 37.5 tokens/s, first after 0.21 s."""
    told = []
    if answer.stopped:
        told.append("stopped")
    elif answer.reason == "length":
        told.append("cut off at its limit")
    if answer.tokens is not None:
        told.append(f"{answer.tokens} tokens")
    if answer.rate is not None:
        told.append(f"{answer.rate:.1f} tokens/s")
    if answer.first is not None:
        told.append(f"first after {answer.first:.2f} s")
    return ", ".join(told)


def printable(text: str) -> str:
    """A model may not move the cursor, colour the screen or name the window."""
    if text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else _escaped(char) for char in text)


def _is_harmless(char: str) -> bool:
    return (char >= " " and not "\x7f" <= char <= "\x9f") or char in "\n\t"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


@contextmanager
def terminal_kept() -> Iterator[None]:
    """Leaves the terminal as it was."""
    import termios

    try:
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, ValueError, OSError):
        yield
        return
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


@contextmanager
def unechoed() -> Iterator[None]:
    """What is typed while an answer comes does not stand in it; it is there afterwards."""
    import termios

    with terminal_kept():
        with suppress(termios.error, ValueError, OSError):
            silent = termios.tcgetattr(sys.stdin)
            silent[3] &= ~termios.ECHO
            termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
        yield
