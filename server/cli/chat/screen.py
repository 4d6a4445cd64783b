"""What a conversation looks like: dim where the model thinks, and figures after each answer."""

from __future__ import annotations

import sys
from typing import TextIO

from .conversation import Answer

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class Screen:
    """`hide_thinking` leaves out what the model thinks. Colours go to terminals only."""

    def __init__(self, stream: TextIO = sys.stdout, *, hide_thinking: bool = False) -> None:
        self._stream = stream
        self._colours = stream.isatty()
        self._hide_thinking = hide_thinking
        self._thinking = False
        self._at_start = True

    def piece(self, text: str, thinking: bool) -> None:
        if thinking and self._hide_thinking:
            return
        if thinking != self._thinking:
            self._turn(thinking)
        self._write(_printable(text))

    def end(self, answer: Answer) -> None:
        """The line after an answer, of a terminal."""
        if self._thinking:
            self._turn(False)
        if not self._at_start:
            self._write("\n")
        if self._colours:
            self._write(f"{_DIM}{figures(answer)}{_PLAIN}\n\n")
        self._at_start = True

    def _turn(self, thinking: bool) -> None:
        if self._colours:
            self._write(_DIM if thinking else f"{_PLAIN}\n\n")
        elif not thinking:
            self._write("\n\n")
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
        told.append("cut at the token limit")
    if answer.tokens is not None:
        told.append(f"{answer.tokens} tokens")
    if answer.rate is not None:
        told.append(f"{answer.rate:.1f} tokens/s")
    if answer.first is not None:
        told.append(f"first after {answer.first:.2f} s")
    return ", ".join(told)


def _printable(text: str) -> str:
    """A model may not move the cursor or colour the screen."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )
