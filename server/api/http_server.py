"""uvicorn, started and stopped by us: its own signal handling knows nothing of engines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import resource
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from server.core.errors import ConfigError, Overloaded
from server.settings import Settings

from .connection import Connection

log = logging.getLogger("ingle.http")

LAST_SECONDS = 2
"""For the last bytes of answers, once nothing runs any more."""
BACKLOG = 2048
MAX_CONNECTIONS = 4096
WARN_SECONDS = 60
"""Between warnings that say the same."""
FILES_BESIDE = 128
"""For engines, models and logs, which must open even when every connection is taken."""


class _Room:
    """Where all places are taken, what has been idle for longest goes for who comes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._warned_at = -math.inf

    def make(self, connections: set[Connection]) -> None:
        """Raises Overloaded where none is idle."""
        if len(connections) <= self._most:
            return
        idle = [(since, id(c), c) for c in connections if (since := c.idle_since) is not None]
        if len(idle) > 1:  # the newest is one
            min(idle)[-1].transport.close()
            return
        if time.monotonic() - self._warned_at > WARN_SECONDS:
            self._warned_at = time.monotonic()
            told = {"connections": self._most}
            log.warning("all connections are busy; more are refused", extra=told)
        raise Overloaded("The server has too many connections. Please try again shortly.")


class _Uvicorn(uvicorn.Server):
    _to_check: Sequence[Connection] = ()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; each time a tenth of the connections, since nobody else runs then."""
        part = counter % 10
        if part == 0:
            self._to_check = tuple(cast("set[Connection]", self.server_state.connections))
        for connection in self._to_check[part::10]:
            connection.end_overdue()
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """One listening socket, and the signals: SIGTERM or SIGINT asks to stop, a second one now."""

    def __init__(self, app: ASGIApp, settings: Settings, on_refused: Callable[[int], None]) -> None:
        """`on_refused` is told the status of each answer that the app was not asked for."""
        make_room = _Room(_most_connections()).make
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=cast(Any, partial(Connection, make_room=make_room, on_refused=on_refused)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=LAST_SECONDS,
        )
        self._address = f"{settings.host}:{settings.port}"
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[None] | None = None
        self._asked_to_stop = asyncio.Event()
        self._asked_again = asyncio.Event()
        self.on_hangup: Callable[[], None] | None = None
        """What SIGHUP asks for, but for that of a terminal, which closes."""

    async def start(self) -> None:
        """Listen. Raises ConfigError when the port is taken after all."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            at_terminal = sys.stdin is not None and sys.stdin.isatty()
            on_hangup = self._on_signal if at_terminal else self._on_hangup
            loop.add_signal_handler(signal.SIGHUP, on_hangup)
        self._task = asyncio.create_task(self._serve(), name="http")
        while not self._server.started:
            if self._task.done():
                raise ConfigError(f"cannot listen on {self._address}; pass another --port")
            await asyncio.sleep(0.01)

    async def _serve(self) -> None:
        with contextlib.suppress(SystemExit):  # uvicorn's answer to a port that is taken
            await self._server.serve()

    async def unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether `work` was done before a signal; it is cancelled by one."""
        return await self._unless(self._asked_to_stop, work, None)

    async def unless_asked_again(self, work: Coroutine[Any, Any, None], seconds: float) -> bool:
        """Whether `work` was done before a second signal and within `seconds`."""
        return await self._unless(self._asked_again, work, seconds)

    async def _unless(
        self, event: asyncio.Event, work: Coroutine[Any, Any, None], seconds: float | None
    ) -> bool:
        working = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait(
                (working, asked), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if working.done():
                working.result()
            return working.done()
        finally:
            for task in (working, asked):
                task.cancel()
            await asyncio.gather(working, asked, return_exceptions=True)

    async def stopped(self) -> None:
        await self._asked_to_stop.wait()

    async def stop(self) -> None:
        """Take no new connections, let the last bytes out, then close."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_hangup(self) -> None:
        if self.on_hangup is not None:
            self.on_hangup()

    def _on_signal(self) -> None:
        if self._asked_to_stop.is_set():
            self._server.force_exit = True
            self._asked_again.set()
        self._asked_to_stop.set()


def _most_connections() -> int:
    """As many as the limit of open files allows, which is raised where it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(soft - FILES_BESIDE, FILES_BESIDE // 8))
