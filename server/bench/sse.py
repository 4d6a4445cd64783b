"""Server-sent events, as far as an OpenAI stream uses them."""

from __future__ import annotations

from collections.abc import Iterator


class EventParser:
    """Bytes in, in any pieces; the data of each event out, as soon as it is whole."""

    def __init__(self) -> None:
        self._partial = b""
        self._lines: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[bytes]:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._lines.append(line[5:].removeprefix(b" "))
            elif not line and self._lines:
                event, self._lines = b"\n".join(self._lines), []
                yield event
