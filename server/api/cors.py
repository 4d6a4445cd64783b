"""Which web pages may use the API from a browser.

Not Starlette's: it answers a preflight it refuses with 400 and text, where every error here has an
envelope; a browser needs no more than the header's absence.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOCALHOST = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")
_EXPOSED = ", ".join(
    (
        "x-request-id",
        "request-id",
        "openai-processing-ms",
        "openai-version",
        "retry-after",
        "retry-after-ms",
        "x-queue-position",
        "x-queue-estimate-ms",
        "x-should-retry",
        "x-ignored-params",
        *(
            f"x-ratelimit-{what}-{of}"
            for what in ("limit", "remaining", "reset")
            for of in ("requests", "tokens")
        ),
    )
)
_METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
_VARY = "Origin, Access-Control-Request-Headers, Access-Control-Request-Private-Network"
_MAX_AGE_SECONDS = "7200"


class Cors:
    """`origins` are exact ones, `localhost` for any port of this machine, and `*` for all.

    Answers preflights itself, on every path and without a key; never allows credentials.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            allowed = not _is_closed(scope) and self._allows(headers.get("origin", ""))
            await _preflight(headers, allowed=allowed)(scope, receive, send)
            return
        origin = headers.get("origin", "")
        allowed = self._allows(origin) and not _is_closed(scope)

        async def send_with_origin(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.add_vary_header("Origin")
                if allowed:
                    answer["access-control-allow-origin"] = origin
                    answer["access-control-expose-headers"] = _EXPOSED
            await send(message)

        await self._app(scope, receive, send_with_origin)

    def _allows(self, origin: str) -> bool:
        if not origin:
            return False
        if "localhost" in self._origins and _LOCALHOST.fullmatch(origin):
            return True
        return "*" in self._origins or origin in self._origins


def _is_closed(scope: Scope) -> bool:
    """To all pages but the server's own, which need no permission."""
    path: str = scope["path"]
    return path == "/admin" or path.startswith("/admin/")


def _preflight(asked: Headers, *, allowed: bool) -> Response:
    """`*` would not cover Authorization: the headers asked for are reflected."""
    answer = {"vary": _VARY}
    if allowed:
        answer |= {
            "access-control-allow-origin": asked.get("origin", ""),
            "access-control-allow-methods": _METHODS,
            "access-control-max-age": _MAX_AGE_SECONDS,
        }
        if wanted := asked.get("access-control-request-headers"):
            answer["access-control-allow-headers"] = wanted
        if asked.get("access-control-request-private-network") == "true":
            answer["access-control-allow-private-network"] = "true"
    return Response(status_code=204, headers=answer)
