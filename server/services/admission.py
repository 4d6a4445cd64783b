"""How many requests may be inside. Counted before a body is parsed, so a burst costs nothing."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.core.errors import Overloaded, ShuttingDown

_MOST_SECONDS = 30
_WEIGHT = 0.2
"""Of the newest gap between two that leave, in the mean of all."""


class Admission:
    """When every place is taken, those refused are told when one should be free for them."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._gap = 0.0
        self._left_at: float | None = None
        self._refused = 0
        self._empty = asyncio.Event()
        self.inside = 0
        self.closed = False

    def close(self) -> None:
        """Let nobody in any more."""
        self.closed = True
        if not self.inside:
            self._empty.set()

    async def emptied(self) -> None:
        """Returns when it is closed and all have left."""
        await self._empty.wait()

    @contextmanager
    def admit(self) -> Iterator[None]:
        """A place for one request. Raises Overloaded when all are taken, or ShuttingDown."""
        if self.closed:
            raise ShuttingDown("The server is shutting down. Please try again shortly.")
        if self.inside >= self._most:
            raise self._overloaded()
        self.inside += 1
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self.inside -= 1
        if self.closed and not self.inside:
            self._empty.set()
        self._refused = max(0, self._refused - 1)
        now = self._clock()
        if self._left_at is not None:
            self._gap += _WEIGHT * (now - self._left_at - self._gap)
        self._left_at = now

    def _overloaded(self) -> Overloaded:
        """The nth to be refused comes back after n have left, as fast as they leave now."""
        self._refused += 1
        error = Overloaded(
            "The server is busy: its waiting queue is full. Please try again shortly."
        )
        error.retry_after = min(max(math.ceil(self._gap * self._refused), 1), _MOST_SECONDS)
        return error
