"""Server-sent events whose headers go out only after admission, and that end with the client."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.core.errors import IngleError
from server.schemas.errors import error_frame
from server.services.place import Place

from .errors import body_of, code_of
from .in_flight import PLACE
from .summary import Summary, summary_of

log = logging.getLogger("ingle.api")

DONE = b"data: [DONE]\n\n"
_PING = b": ping\n\n"
_PING_SECONDS = 15.0
_STALLED_SECONDS = 30.0
"""A client that takes nothing for so long is taken to be gone. Up to then uvicorn keeps 64 KiB for
it, and `frames` is asked for no more."""
_NEWS_SECONDS = 0.5
"""For a client to be told that its request was ended; what the engine has for it is freed then."""
_PINGS_TO_IDLE = 3
"""Comments keep connections; clients also time the gaps between chunks, from 60 s on."""


class EventStream(Response):
    """Sends `frames` as they come and a comment when 15 s pass without one, or after 45 s what
    `idle` gives, if anything.

    When the client goes away, `frames` is closed, which cancels what feeds it.
    """

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[bytes], idle: Callable[[], bytes]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._frames = frames
        self._idle = idle
        self._pings = 0
        self._sent_at = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tasks = [
            asyncio.ensure_future(work)
            for work in (
                self._send_all(send),
                disconnected(receive),
                self._ping(send),
                _ended_unread(scope.get(PLACE)),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            summary_of(scope).client_gone = tasks[0] not in done or tasks[0].exception() is not None
            if any(isinstance(task.exception(), TimeoutError) for task in done):
                told = {"seconds": _STALLED_SECONDS}
                log.warning("a client takes nothing; its answer is cancelled", extra=told)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._frames.aclose()

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        async for frame in self._frames:
            await self._send(send, frame)
            self._pings = 0
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, body: bytes) -> None:
        """Raises TimeoutError when the client does not read."""
        async with asyncio.timeout(_STALLED_SECONDS):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        self._sent_at = time.monotonic()

    async def _ping(self, send: Send) -> None:
        while True:
            quiet = time.monotonic() - self._sent_at
            if quiet >= _PING_SECONDS:
                self._pings += 1
                body = _PING if self._pings % _PINGS_TO_IDLE else self._idle() or _PING
                await self._send(send, body)
                quiet = 0.0
            await asyncio.sleep(_PING_SECONDS - quiet)


async def _ended_unread(place: Place | None) -> None:
    """Returns soon after the request was ended, if its client has not taken the news by then."""
    if place is None:
        await asyncio.Event().wait()
        return
    await place.ended()
    await asyncio.sleep(_NEWS_SECONDS)


async def disconnected(receive: Receive) -> None:
    """Returns when the client has gone. The body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def until_done(frames: AsyncGenerator[bytes], summary: Summary) -> AsyncGenerator[bytes]:
    """`frames`, then the end that clients wait for; an error is a frame before it."""
    end = DONE
    try:
        async with aclosing(frames):
            async for frame in frames:
                yield frame
    except Exception as error:
        if not isinstance(error, IngleError):
            log.exception("a bug while streaming")
        summary.error = code_of(error)
        end = error_frame(body_of(error)) + DONE
    yield end
