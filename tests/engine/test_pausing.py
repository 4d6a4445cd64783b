"""A request whose reader stalls: its engine leaves it out, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.core.types import Admitted, EngineEvent, Finished, Started, TokenDelta
from server.engine.ongoing import PILE_BYTES, Channel
from server.engine.process import EngineProcess
from tests.fakes import Recorder

from . import test_resume as resumed
from .asking import ask
from .simulation import Job, Simulation

WATCHDOG = 1.0
SAID = "all of it, in its order, once " * 60


def test_a_paused_sequence_keeps_its_slot_and_others_go_on() -> None:
    jobs = [Job(tuple(range(100 * n, 100 * n + 40)), most=60) for n in range(4)]
    simulation = Simulation(jobs)
    for _ in range(40):
        simulation.step()
    course = simulation.courses["1"]
    paused = course.sequence
    assert paused.decoding and paused.slot is not None
    said, paused.paused = len(course.tokens_at), True
    while len(simulation.scheduler.running) > 1:
        simulation.step()
    assert simulation.scheduler.idle and not simulation.scheduler.schedule(0.0)[0].rows
    assert len(course.tokens_at) == said, "it went on"
    paused.paused = False
    assert not simulation.scheduler.idle
    assert all(course.ended_at is not None for course in simulation.run())


def test_a_prompt_is_read_to_its_end_all_the_same() -> None:
    """Another sequence may be held back for a prefix of it."""
    shared = tuple(range(600))
    simulation = Simulation([Job(shared, most=5), Job((*shared, 7), most=5)])
    simulation.step()
    first = simulation.courses["0"].sequence
    first.paused = True
    while simulation.courses["1"].ended_at is None:
        simulation.step()
    assert first.resting and simulation.copies == 1
    first.paused = False
    simulation.run()


@contextlib.asynccontextmanager
async def started(stats: Recorder, slots: int) -> AsyncIterator[EngineProcess]:
    config = EngineConfig(
        "server.engine.echo:EchoRunner",
        RunnerConfig("echo:", context=4096, slots=slots),
        SchedulerConfig(watchdog_seconds=WATCHDOG, draft=False),
    )
    engine = EngineProcess("echo", config, stats)
    async with asyncio.timeout(60):
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop()


async def _quiet(stats: Recorder, seconds: float) -> None:
    """Returns when no step was reported for so long."""
    steps = -1
    while steps != len(stats.steps):
        steps = len(stats.steps)
        await asyncio.sleep(seconds)


def _text(events: list[EngineEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TokenDelta))


async def _begin(generation: AsyncGenerator[list[EngineEvent]]) -> str:
    """Reads no further than its first text."""
    text = ""
    while not text:
        text = _text(await anext(generation))
    return text


async def _rest(generation: AsyncGenerator[list[EngineEvent]]) -> str:
    events = [event async for batch in generation for event in batch]
    assert isinstance(events[-1], Finished)
    return _text(events)


async def _neighbour(engine: EngineProcess) -> None:
    assert await _rest(engine.generate(ask("me too", "neighbour"))) == "me too"


@pytest.mark.anyio
@pytest.mark.parametrize("slots", [1, 2])
async def test_it_waits_for_its_reader_and_is_not_taken_to_hang(slots: int) -> None:
    stats = Recorder()
    async with started(stats, slots) as engine:
        generation = engine.generate(ask(SAID, logprobs=20))
        text = await _begin(generation)
        await _quiet(stats, 2 * WATCHDOG)
        tokens = sum(step.decode_tokens for step in stats.steps)
        assert 10 < tokens < len(SAID) / 2, "it was not paused, or at once"
        neighbour = asyncio.create_task(_neighbour(engine))
        if slots == 2:
            await neighbour
        else:
            await _quiet(stats, 2 * WATCHDOG)
        text += await _rest(generation)
        await neighbour
    assert text == SAID and stats.restarts == []


@pytest.mark.anyio
async def test_it_goes_on_in_the_next_process_when_its_reader_does() -> None:
    stats = Recorder()
    async with started(stats, 2) as engine:
        generation = engine.generate(ask(SAID, logprobs=20))
        text = await _begin(generation)
        await _quiet(stats, 0.3)
        resumed.end(engine)
        while len(stats.loads) < 2:
            await asyncio.sleep(0.01)
        await _quiet(stats, 0.3)
        tokens = sum(step.decode_tokens for step in stats.steps)
        assert tokens < len(SAID) / 2, "it was not paused there"
        text += await _rest(generation)
    assert text == SAID and stats.restarts == ["SIGKILL"]


@pytest.mark.anyio
async def test_a_slot_is_told_of_before_a_long_prompt_is_read_and_a_queue_by_its_length() -> None:
    stats = Recorder()
    async with resumed.started(stats, "echo:prefill=300") as engine:
        generation = engine.generate(ask("x" * 300))
        told: list[EngineEvent] = []
        while len(told) < 2:
            told += await anext(generation)
        assert told == [Admitted("r", 318), Started("r")]
        began = time.monotonic()
        await _begin(generation)
        assert time.monotonic() - began > 0.5
        await generation.aclose()
        while stats.steps[-1].running:
            await asyncio.sleep(0.01)
        others = [engine.generate(ask("x" * 300, f"r{n}")) for n in range(6)]
        positions = [(await anext(other))[0].position for other in others]
        assert positions == [0, 0, 0, 0, 1, 2]
        for other in others:
            await other.aclose()


@pytest.mark.anyio
async def test_a_reader_that_keeps_up_is_never_paused() -> None:
    channel = Channel({"r"})
    much = TokenDelta("r", "x" * (2 * PILE_BYTES), (1,))
    for _ in range(3):
        assert not channel.put(much)
        assert await channel.take() == [much]
    assert not channel.put(much)
    assert channel.put(TokenDelta("r", "one more", (1,)))
