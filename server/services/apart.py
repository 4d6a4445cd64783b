"""Work that a client can make long, in a thread that nothing else waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, TypeVar, TypeVarTuple

from pydantic import BaseModel

from server.core.errors import Overloaded

T = TypeVar("T")
Args = TypeVarTuple("Args")

LONG = 1000
"""Parts of a schema, or of several. What has fewer is read in a few milliseconds."""
PATIENCE = 0.5
"""Seconds after which none begins."""


def is_long(*values: Any, letters: int = 16) -> bool:
    """Whether these models, objects, lists and texts have more than `LONG` parts together.

    As many `letters` are a part.
    """
    left, waiting = LONG, list(values)
    while waiting and left > 0:
        value = waiting.pop()
        left -= 1
        if isinstance(value, BaseModel):
            value = vars(value)
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, str):
            left -= len(value) // letters
        elif isinstance(value, list):
            left -= len(value)
            waiting += value[: max(left, 0)]
    return left <= 0


class Apart:
    """Long schemas, GBNF and many tools are read one after the other: a hostile one takes a second,
    and half a dozen of them would take every thread there is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "apart")
        self._large = asyncio.Lock()

    async def off_loop(
        self, work: Callable[[*Args], T], *args: *Args, long: bool, large: bool = False
    ) -> T:
        """In a thread: what is `long` waits for others of its kind, what is `large` too, but as
        long as it takes; the rest for nobody. Threads that compute hold up the event loop."""
        if long:
            return await self.run(work, *args)
        async with self._large if large else nullcontext():
            return await asyncio.to_thread(work, *args)

    async def run(self, work: Callable[[*Args], T], *args: *Args) -> T:
        """Raises Overloaded for what would have to wait too long."""
        asked = self._clock()

        def begin() -> T:
            if self._clock() - asked > PATIENCE:
                raise Overloaded("The server is busy reading grammars. Please try again shortly.")
            return work(*args)

        return await asyncio.get_running_loop().run_in_executor(self._thread, begin)
