"""Bytes of tokens to text a client may see: whole characters, never part of a stop string."""

from __future__ import annotations

import codecs


class TextAssembler:
    """Feed token bytes, take the text that is safe to send.

    Held back: bytes of an unfinished UTF-8 character, and the longest tail that could still become
    a stop string. Bytes that can never be UTF-8 become U+FFFD.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(s for s in stop if s)
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        """The text released by `data`. Sets `stopped` where a stop string is complete."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """What is still held when the sequence ends without a stop string."""
        if self.stopped:
            return ""
        text = self._release(self._decoder.decode(b"", final=True))
        if not self.stopped:
            text, self._held = text + self._held, ""
        return text

    def _release(self, text: str) -> str:
        if not self._stop or self.stopped:
            return "" if self.stopped else text
        text = self._held + text
        found = min((i for i in map(text.find, self._stop) if i >= 0), default=-1)
        if found >= 0:
            self.stopped, self._held = True, ""
            return text[:found]
        safe = len(text) - self._held_length(text)
        self._held = text[safe:]
        return text[:safe]

    def _held_length(self, text: str) -> int:
        longest = max(map(len, self._stop)) - 1
        for length in range(min(longest, len(text)), 0, -1):
            tail = text[-length:]
            if any(s.startswith(tail) for s in self._stop):
                return length
        return 0
