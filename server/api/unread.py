"""What is refused before its body came is not received all the same."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SMALL = 64 << 10
"""Bytes of a body that have come before its refusal goes out: the connection stays useful."""


class Unread:
    """Closes the connection after an answer that did not wait for the end of a large body.

    Otherwise the HTTP server would receive the rest, to find the next request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_large(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        read = False

        async def receive_and_note() -> Message:
            nonlocal read
            message = await receive()
            read = read or not message.get("more_body", False)
            return message

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and not read:
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, receive_and_note, send_and_close)


def _is_large(headers: Headers) -> bool:
    length = headers.get("content-length", "")
    return "transfer-encoding" in headers or (length.isdecimal() and int(length[:20]) > SMALL)
