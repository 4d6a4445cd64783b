"""Work that may take long waits in a line of its own, and not for long."""

from __future__ import annotations

import asyncio
import threading

import pytest

from server.core.errors import InvalidRequest, Overloaded
from server.services.apart import PATIENCE, Apart

pytestmark = pytest.mark.anyio
DEADLINE = 5


async def test_one_after_the_other_and_none_that_waited_too_long() -> None:
    now = 0.0
    began, free = threading.Event(), threading.Event()
    apart = Apart(clock=lambda: now)

    def slow() -> str:
        began.set()
        assert free.wait(DEADLINE)
        return "slow"

    async with asyncio.timeout(DEADLINE):
        first = asyncio.ensure_future(apart.run(slow))
        early = asyncio.ensure_future(apart.run(str.upper, "early"))
        await asyncio.to_thread(began.wait, DEADLINE)
        now = PATIENCE
        late = asyncio.ensure_future(apart.run(str.upper, "late"))
        await asyncio.sleep(0)
        assert not early.done(), "beside it"
        assert await asyncio.to_thread(str.upper, "others") == "OTHERS"
        now = PATIENCE * 1.5
        free.set()
        assert (await first, await late) == ("slow", "LATE")
        with pytest.raises(Overloaded):
            await early


async def test_errors_come_through() -> None:
    def wrong() -> None:
        raise InvalidRequest("wrong", param="grammar")

    with pytest.raises(InvalidRequest, match="wrong"):
        await Apart().run(wrong)
