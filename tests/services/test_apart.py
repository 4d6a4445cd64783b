"""Work that may take long waits in a line of its own, and not for long."""

from __future__ import annotations

import asyncio
import threading

import pytest

from server.core.errors import InvalidRequest, Overloaded
from server.schemas.structure import ResponseFormat
from server.services.apart import PATIENCE, Apart, is_long

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


@pytest.mark.parametrize(
    ("values", "long"),
    [
        ((), False),
        ((None, 1, "text", {"a": [1, 2, {"b": "c"}]}), False),
        (({"a": "x" * 17_000},), True),
        (({str(i): 1 for i in range(1001)},), True),
        (([[[]] * 30] * 40,), True),
        (([0] * 400, [0] * 400), True),
        (([0] * 400,), False),
        ((ResponseFormat.model_validate({"type": "x", "schema": {"enum": [0] * 999}}),), True),
        ((ResponseFormat.model_validate({"type": "x", "schema": {"enum": [0] * 99}}),), False),
    ],
)
async def test_what_is_long(values: tuple[object, ...], long: bool) -> None:
    assert is_long(*values) == long


async def test_errors_come_through() -> None:
    def wrong() -> None:
        raise InvalidRequest("wrong", param="grammar")

    with pytest.raises(InvalidRequest, match="wrong"):
        await Apart().run(wrong)


async def test_what_is_large_is_done_one_after_the_other_and_nothing_else_waits_for_it() -> None:
    apart = Apart()
    busy, most = 0, 0
    began, free = threading.Event(), threading.Event()

    def large() -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        began.set()
        assert free.wait(DEADLINE)
        busy -= 1

    async with asyncio.timeout(DEADLINE):
        all_large = [
            asyncio.ensure_future(apart.off_loop(large, long=False, large=True)) for _ in range(4)
        ]
        await asyncio.to_thread(began.wait, DEADLINE)
        assert await apart.off_loop(str.upper, "small", long=False) == "SMALL"
        assert await apart.off_loop(str.upper, "long", long=True) == "LONG"
        free.set()
        await asyncio.gather(*all_large)
    assert most == 1
