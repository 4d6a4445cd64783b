"""The time a request spends inside: its place in the queue, and whether its client still waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from fastapi import Request

from .sse import disconnected
from .state import state_of

T = TypeVar("T")


async def admission(request: Request) -> AsyncGenerator[AsyncExitStack]:
    """A place among the requests inside, and a stack closed when the response is complete."""
    with state_of(request).admission.admit():
        async with AsyncExitStack() as stack:
            yield stack


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
