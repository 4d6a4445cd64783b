"""Before any route: who is asking, and whether there is room. Nothing of a body is read for it.

Plain ASGI, since in a burst the last one to be refused waits for all the others to be: routing and
dependencies would take five times as long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.core.errors import IngleError, Unauthorized
from server.services.admission import Admission
from server.services.place import NOBODYS

from .auth import scope_of
from .errors import code_of, response_of
from .in_flight import PLACE, InFlight
from .inside import admission
from .keys import ApiKeys
from .summary import summary_of

_BURST_SECONDS = 0.02
"""That those who are let in wait at most until nobody else comes."""


class Gate:
    """Requests to `routes`, which are by path, get a place, or an error at once."""

    def __init__(
        self,
        app: ASGIApp,
        admission: Admission,
        keys: ApiKeys,
        routes: Mapping[str, APIRoute],
        in_flight: InFlight,
    ) -> None:
        self._app = app
        self._admission = admission
        self._keys = keys
        self._routes = routes
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            key = scope_of(headers, self._keys)
        except Unauthorized as error:
            scope["route"] = route
            await self._refuse(error, scope, receive, send)
            return
        send = self._telling(send, key, scope)
        entered = False
        try:
            with self._admission.admit(key, _announced(headers)) as place:
                entered = True
                scope[PLACE] = place
                await self._burst_over()
                with self._in_flight.held(scope, place):
                    await self._app(scope, receive, send)
        except IngleError as error:
            if entered:
                raise
            scope["route"] = route
            await self._refuse(error, scope, receive, send)

    async def _burst_over(self) -> None:
        """Who comes at the same time hears of a refusal before work begins."""
        until, before = time.monotonic() + _BURST_SECONDS, -1
        while before != self._admission.asked and time.monotonic() < until:
            before = self._admission.asked
            await asyncio.sleep(0)

    async def _refuse(self, error: IngleError, scope: Scope, receive: Receive, send: Send) -> None:
        """The body stays unread: the HTTP server drops it as it comes, so that a client that sends
        all of it first hears why; after a small one it may use the connection again."""
        summary_of(scope).error = code_of(error)
        response = response_of(error)
        if "expect" in Headers(scope=scope):  # whether it sends a body now is its choice
            response.headers["connection"] = "close"
        await response(scope, receive, send)

    def _telling(self, send: Send, key: str, scope: Scope) -> Send:
        async def send_with_place(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = MutableHeaders(scope=message)
                for name, value in self._admission.headers(key).items():
                    told[name] = value
                place = scope.get(PLACE, NOBODYS)
                if place.position:
                    told["x-queue-position"] = str(place.position)
                if place.estimate is not None:
                    told["x-queue-estimate-ms"] = str(round(place.estimate * 1000))
            await send(message)

        return send_with_place


def asks_for_place(route: APIRoute) -> bool:
    return any(dependency.call is admission for dependency in route.dependant.dependencies)


def _announced(headers: Headers) -> int:
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else 0
