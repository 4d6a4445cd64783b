"""When a model that is not there should be."""

from __future__ import annotations

import asyncio

import pytest

from server.core.errors import ModelLoading
from server.engine.load_time import LoadTime
from tests.fakes import Recorder

from .asking import ask
from .test_resume import end, started


def test_it_says_what_is_left_of_the_last_load() -> None:
    load = LoadTime()
    load.begin(100.0)
    assert load.left(100.0) == 2.0, "nothing is known"
    load.end(120.0)
    load.begin(1000.0)
    assert [load.left(now) for now in (1000.0, 1005.0, 1019.5)] == [20.0, 15.0, 1.0]


def test_what_is_late_is_waited_for_half_as_long_again_and_a_minute_at_most() -> None:
    load = LoadTime()
    load.begin(0.0)
    assert [load.left(now) for now in (10.0, 60.0, 999.0)] == [5.0, 30.0, 60.0]
    load.begin(2000.0)
    assert load.left(1900.0) == 60.0


@pytest.mark.anyio
async def test_who_comes_while_it_restarts_is_told_how_long_it_loads() -> None:
    stats = Recorder()
    async with started(stats, "echo:load=4") as engine:
        end(engine)
        while engine.ready:
            await asyncio.sleep(0.01)
        with pytest.raises(ModelLoading) as told:
            await anext(engine.generate(ask("hi")))
    assert 3.5 < told.value.retry_after < 10
