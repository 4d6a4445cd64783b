"""Bytes of tokens to text a client may see: whole characters, never part of a stop string."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable


class TextAssembler:
    """Feed token bytes, take the text that is safe to send.

    Held back: bytes of an unfinished UTF-8 character, and the longest tail that could still become
    a stop string. Bytes that can never be UTF-8 become U+FFFD. Between the two strings of a pair of
    `hidden` stop strings are ordinary text; an empty first string means from the start, an empty
    second one to the end; of two that begin alike the longer counts. `start` is GenerateRequest's
    `hidden_start`: text is held back as long as it may begin so.
    """

    def __init__(
        self,
        stop: tuple[str, ...] = (),
        hidden: tuple[tuple[str, str], ...] = (),
        start: str = "",
    ) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(s for s in stop if s)
        self._closers = {opener: closer for opener, closer in hidden if opener}
        self._closer = next((closer for opener, closer in hidden if not opener), None)
        self._start = re.compile(start) if start and self._stop else None
        self._begins = True
        """Nothing visible came yet but what may be the beginning of hidden text."""
        self._held = ""
        self.decoded = 0
        """Characters so far, whether released or not; an unfinished one does not count."""
        self.released = 0
        self.stopped = False

    def push(self, data: bytes) -> str:
        """The text released by `data`. Sets `stopped` where a stop string is complete."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """What is still held when the sequence ends without a stop string."""
        return self._release(self._decoder.decode(b"", final=True), final=True)

    def _release(self, text: str, *, final: bool = False) -> str:
        if self.stopped:
            return ""
        self.decoded += len(text)
        if self._stop:
            text = self._scan(self._held + text, final=final)
        self.released += len(text)
        return text

    def _scan(self, text: str, *, final: bool) -> str:
        """What of `text`, which follows all that was released, may go out. The rest is held."""
        start = 0
        while not self.stopped:
            hidden = self._closer is not None
            end = (
                self._pass_hidden(text, start) if hidden else self._pass_visible(text, start, final)
            )
            if end is None:
                break
            start = end
        if self.stopped:
            self._held = ""
            return text[: self._stop_at(text, start)]
        safe = len(text) if final else self._safe(text, start)
        self._held = text[safe:]
        return text[:safe]

    def _pass_hidden(self, text: str, start: int) -> int | None:
        """Where the hidden part ends, if it does in `text`."""
        closer = self._closer
        found = text.find(closer, start) if closer else -1
        if not closer or found < 0:
            return None
        self._closer = None
        self._begins = True
        return found + len(closer)

    def _pass_visible(self, text: str, start: int, final: bool) -> int | None:
        """Where the next hidden part begins; None when the visible part ends the text."""
        if self._start and self._begins:
            begun = self._start.fullmatch(text, start)
            certain = begun is not None and bool(begun.lastindex)
            self._begins = begun is not None and not certain and not final
            self._closer = "" if certain else None
            if certain or self._begins:
                return None
        found = [(at, -len(o), o) for o in self._closers if (at := text.find(o, start)) >= 0]
        opened, _, opener = min(found, default=(-1, 0, ""))
        stop = self._stop_at(text, start)
        if opened >= 0 and stop < 0 and not final and _maybe(text, start, self._stop) < opened:
            return None  # a stop string that began before the opener may still become whole
        if opened >= 0 and not 0 <= stop < opened:
            longer = text[opened:]
            if not final and any(o != longer and o.startswith(longer) for o in self._closers):
                return None
            self._closer = self._closers[opener]
            return opened + len(opener)
        # What could still become an opener hides the stop string in it.
        self.stopped = stop >= 0 and (final or stop < _maybe(text, start, self._closers))
        return None

    def _stop_at(self, text: str, start: int) -> int:
        """Where the stop string begins that is whole first, whatever came with it."""
        found = ((i + len(s), i) for s in self._stop if (i := text.find(s, start)) >= 0)
        return min(found, default=(-1, -1))[1]

    def _safe(self, text: str, start: int) -> int:
        """How much of `text` cannot change its meaning any more."""
        if self._closer is not None:
            return _maybe(text, start, (self._closer,) if self._closer else ())
        if self._start and self._begins:
            return start
        return min(_maybe(text, start, self._stop), _maybe(text, start, self._closers))


def _maybe(text: str, start: int, strings: Iterable[str]) -> int:
    """Where the longest tail of `text` begins that could become one of `strings`."""
    strings = tuple(strings)
    longest = max(map(len, strings), default=1) - 1
    for begin in range(max(start, len(text) - longest), len(text)):
        if any(s.startswith(text[begin:]) for s in strings):
            return begin
    return len(text)
