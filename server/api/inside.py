"""The time a request spends inside: its place, and whether its client still waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol, TypeVar, cast

from fastapi import Request
from starlette.exceptions import HTTPException

from server.services.place import Place, in_time

from .in_flight import PLACE
from .sse import disconnected

T = TypeVar("T")


class Run(AbstractAsyncContextManager[Any], Protocol):
    """What an engine does for one request."""

    place: Place


class Inside(AsyncExitStack):
    """Closed when the response is complete."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place

    async def keep(self, run: Run) -> None:
        """`run` tells the request's place how far it is; what of it is left then is cancelled."""
        run.place = self._place
        await self.enter_async_context(run)


async def admission(request: Request) -> AsyncGenerator[Inside]:
    """The place that the gate gave the request. Routes with this dependency have the gate."""
    async with Inside(place_of(request)) as inside:
        yield inside


def place_of(request: Request) -> Place:
    place = request.scope.get(PLACE)
    if place is None:  # a path that is spelled otherwise than the gate knows it
        raise HTTPException(404)
    return cast(Place, place)


async def begun(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """As `unless_gone`, as long as the request may wait: its model may have to be loaded first."""
    place = place_of(request)
    return await unless_gone(request, in_time(work, place, waiting=True))


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None when the client went away first; then `work` is cancelled."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(disconnected(request.receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
