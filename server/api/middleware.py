"""Plain ASGI around every request: an id on every response, and its count by route and status.

Also the last resort for bugs, since Starlette answers them outside all middleware.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import response_of

log = logging.getLogger("ingle.api")

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

OnResponse = Callable[[str, str, int], None]
"""Called with model, route and status when a response starts."""


class RequestEnvelope:
    def __init__(self, app: ASGIApp, on_response: OnResponse) -> None:
        self._app = app
        self._on_response = on_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-request-id"] = request_id
                model = scope.get("ingle.model", "")
                self._on_response(model, _route(scope), message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            log.exception("a bug while answering %s", request_id)
            if started:
                raise
            await response_of(error)(scope, receive, send_with_id)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _SANE_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def _route(scope: Scope) -> str:
    """The route's template, so that no path a client invents becomes a label."""
    return getattr(scope.get("route"), "path", "unmatched")
