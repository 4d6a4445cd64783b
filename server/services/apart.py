"""Work that a client can make long, in a thread that nothing else waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from server.core.errors import Overloaded

T = TypeVar("T")
Args = TypeVarTuple("Args")

PATIENCE = 0.8
"""Seconds after which none begins."""


class Apart:
    """Schemas, grammars and tools are read one after the other. Hardly any takes ten milliseconds;
    a hostile one may take a thousand times as long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "apart")

    async def run(self, work: Callable[[*Args], T], *args: *Args) -> T:
        """Raises Overloaded for what would have to wait too long."""
        asked = self._clock()

        def begin() -> T:
            if self._clock() - asked > PATIENCE:
                raise Overloaded("The server is busy reading grammars. Please try again shortly.")
            return work(*args)

        return await asyncio.get_running_loop().run_in_executor(self._thread, begin)
