"""Raw text as it arrives, and readers that wait for more of it in the middle of their work."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")

Reading = Generator[None, None, T]
"""A reader yields where it needs text that has not come yet."""


class Source:
    """`at` is the position in `text` of what is read next; `say` takes what a reader understands.

    `base` is the position of `text`'s beginning in the whole answer. `exhausted`: a reader missed
    text at the end.
    """

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.base = 0
        self.ended = False
        self.exhausted = False
        self.say: Callable[[str], None] = lambda _: None

    def feed(self, text: str) -> None:
        self.text += text

    def forget(self) -> None:
        """Drops what was read."""
        self.base += self.at
        self.text = self.text[self.at :]
        self.at = 0

    @property
    def rest(self) -> str:
        return self.text[self.at :]

    def more(self) -> Reading[bool]:
        """Waits for text beyond what is there; False at the end."""
        size = self.base + len(self.text)
        while self.base + len(self.text) == size and not self.ended:
            yield
        came = self.base + len(self.text) > size
        self.exhausted = self.exhausted or not came
        return came

    def exact(self, text: str) -> Reading[bool]:
        """Reads `text` if it is what comes."""
        while not self.text.startswith(text, self.at):
            have = len(self.text) - self.at
            if have >= len(text) or not self.text.endswith(text[:have]):
                return False
            if not (yield from self.more()):
                return False
        self.at += len(text)
        return True

    def gap(self) -> Reading[None]:
        """Reads whitespace, to the first character that is none."""
        while True:
            while self.at < len(self.text):
                if not self.text[self.at].isspace():
                    return
                self.at += 1
            if not (yield from self.more()):
                return

    def until(self, stop: str) -> Reading[str | None]:
        """Reads to `stop` and over it; None where it does not come."""
        start = seen = self.at
        while (found := self.text.find(stop, seen)) < 0:
            seen = max(start, len(self.text) - len(stop) + 1)
            if not (yield from self.more()):
                return None
        self.at = found + len(stop)
        return self.text[start:found]


def beginning_of(text: str, marks: tuple[str, ...], at: int = 0) -> int:
    """Where in `text` a mark may have begun that is not whole yet; its length if nowhere."""
    for start in range(max(at, len(text) - max(map(len, marks), default=0) + 1), len(text)):
        if any(mark.startswith(text[start:]) for mark in marks):
            return start
    return len(text)
