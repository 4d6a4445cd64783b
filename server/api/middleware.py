"""Plain ASGI around every request: the headers of every response, and an answer to every bug."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.core.errors import ShuttingDown

from .body import IGNORED
from .errors import CLIENT_GONE, code_of, response_of
from .in_flight import REQUEST_ID
from .summary import Summaries, summary_of

log = logging.getLogger("ingle.api")

_SANE_ID = re.compile(r"[!-~]{1,512}")
_HEADER_SAFE = re.compile(r"[A-Za-z0-9_.$\[\]-]{1,64}")
_MOST_IGNORED = 32

OnResponse = Callable[[str, str, int], None]
"""Called with model, route and status when a response starts."""


class RequestEnvelope:
    """An id and what OpenAI says of itself on every response; each is counted and told by route."""

    def __init__(self, app: ASGIApp, on_response: OnResponse, summaries: Summaries) -> None:
        self._app = app
        self._on_response = on_response
        self._summaries = summaries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":  # the HTTP server drops the body
            scope = {**scope, "method": "GET"}
        started = time.monotonic()
        request_id = scope[REQUEST_ID] = _request_id(Headers(scope=scope))
        summary, status = summary_of(scope), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(int((time.monotonic() - started) * 1000))
                headers["openai-version"] = "2020-10-01"
                if ignored := _ignored(scope):
                    headers["x-ignored-params"] = ignored
                self._on_response(summary.model, _route(scope), status)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            summary.error = summary.error or ShuttingDown.code
            raise
        finally:
            summary.client_gone |= status == CLIENT_GONE
            seconds = time.monotonic() - started
            self._summaries.tell(summary, request_id, method, _route(scope), status, seconds)


class LastResort:
    """Answers bugs, since Starlette would do it outside all middleware, without their headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:
            log.exception("a bug while answering", extra={"id": scope.get(REQUEST_ID)})
            summary_of(scope).error = code_of(error)
            if started:
                raise
            await response_of(error)(scope, receive, send)


def _request_id(headers: Headers) -> str:
    given = (headers.get(name, "") for name in ("x-request-id", "x-client-request-id"))
    sane = (value for value in given if _SANE_ID.fullmatch(value))
    return next(sane, None) or f"req_{secrets.token_hex(12)}"


def _ignored(scope: Scope) -> str:
    """Names that a header cannot carry are nobody's parameters."""
    names = [name for name in scope.get(IGNORED, ()) if _HEADER_SAFE.fullmatch(name)]
    return ",".join(names[:_MOST_IGNORED])


def _route(scope: Scope) -> str:
    """The route's template, so that no path a client invents becomes a label."""
    return getattr(scope.get("route"), "path", "unmatched")
