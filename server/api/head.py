"""The head of a request: how large it may be, and what of it is not let through to the parser."""

from __future__ import annotations

import re

import httptools

from server.core.errors import HeadersTooLarge, MalformedRequest

MAX_HEAD_BYTES = 16 << 10
"""Of the request line and all headers; of a trailer, and of a chunk's extension."""

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_CUT = re.compile(rb"(?<!\r\n)\r(?:\n(?:u(?:p(?:g(?:r(?:a(?:de?)?)?)?)?)?)?)?\Z", re.IGNORECASE)
"""Where one may begin that has not come in whole."""


class Head:
    """Of the request that comes in. `unseen` bytes are with the parser, which says nothing yet."""

    def __init__(self) -> None:
        self.unseen = 0
        self._size = 0

    def begin(self) -> None:
        self.unseen = self._size = 0

    def received(self, size: int) -> None:
        self.unseen += size

    def seen(self, size: int) -> None:
        """Raises HeadersTooLarge."""
        self.unseen = 0
        self._size += size
        if self._size > MAX_HEAD_BYTES:
            raise too_large()

    def check_unseen(self) -> None:
        """Raises HeadersTooLarge. The read in which something began is not counted."""
        if self.unseen > MAX_HEAD_BYTES:
            raise too_large()


class Upgrades:
    """Declines every upgrade, as HTTP lets a server do.

    The parser would take the body of a request that offers one for another protocol, and nothing
    after it: Java's own client offers HTTP/2 with every request, WebSocket clients fall back.
    """

    def __init__(self) -> None:
        self._held = b""

    def decline(self, data: bytes) -> bytes:
        """What the parser is to read of a head's bytes; a cut header comes with its rest."""
        data, self._held = self._held + data, b""
        if b"\r\n\r\n" not in data and (cut := _CUT.search(data)):
            data, self._held = data[: cut.start()], data[cut.start() :]
        return _UPGRADE.sub(b"\r\nx-grade:", data)


def check_head(
    parser: httptools.HttpRequestParser, url: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """Raises MalformedRequest for what httptools lets pass and HTTP does not."""
    version = parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise MalformedRequest(f"HTTP/{version} is not spoken here: use HTTP/1.1.")
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (not hosts and version == "1.1"):
        raise MalformedRequest("A request must have one Host header.")
    if parser.should_upgrade():
        raise MalformedRequest("This server is no proxy.")
    if not httptools.parse_url(url).path:
        raise MalformedRequest("The target of the request has no path.")


def too_large() -> HeadersTooLarge:
    return HeadersTooLarge(
        f"The request's headers are larger than this server's limit of {MAX_HEAD_BYTES} bytes."
    )
