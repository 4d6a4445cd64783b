"""The one path of a generation: admission, events, cancelling, and the record at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from server.core.errors import ContextOverflow, EngineError, ModelLoading
from server.core.stats import RequestRecord
from server.core.types import Admitted, Finished, GenerateRequest, TokenDelta, Usage
from server.services.generation import Generation
from tests.fakes import FakeEngine, Moment, Recorder, Script, says

pytestmark = pytest.mark.anyio


def _generation(script: Script, choices: int = 1) -> tuple[Generation, FakeEngine, Recorder]:
    engine, stats = FakeEngine(script), Recorder()
    requests = [GenerateRequest(f"r{i}", ()) for i in range(choices)]
    return Generation(engine, requests, stats), engine, stats


async def _text(generation: Generation) -> str:
    return "".join(
        [event.text async for events in generation for event in events if hasattr(event, "text")]
    )


def _record(stats: Recorder) -> RequestRecord:
    (record,) = stats.requests
    return record


async def test_it_yields_what_the_engine_says_and_records_it_once() -> None:
    generation, engine, stats = _generation(says("Hello", prompt=7, cached=3))
    async with generation:
        assert await generation.admitted() == 7
        assert await _text(generation) == "Hello"
        assert generation.usages() == [Usage(7, 3, 5)]
        assert stats.requests == []
    record = _record(stats)
    assert engine.closed.is_set()
    assert (record.model, record.outcome) == ("fake", "stop")
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (7, 3, 5)
    assert record.queue_seconds == 0.25
    assert record.first_token_seconds is not None
    assert 0 <= record.first_token_seconds <= record.total_seconds


async def test_the_outcome_is_length_when_any_choice_was_cut() -> None:
    def script(requests: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        yield [Admitted(r.id, 7) for r in requests]
        yield [Finished("r1", "length", Usage(7, 0, 2), 0.5)]
        yield [Finished("r0", "stop", Usage(7, 7, 3), 0.125)]

    generation, _, stats = _generation(script, choices=2)
    async with generation:
        await generation.admitted()
        await _text(generation)
        assert generation.usages() == [Usage(7, 7, 3), Usage(7, 0, 2)], "in the choices' order"
    assert _record(stats).outcome == "length"
    assert _record(stats).queue_seconds == 0.125


async def test_events_before_the_last_admission_are_not_lost() -> None:
    """One choice may speak while another is still being tokenised."""

    def script(_: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        yield [Admitted("r0", 7), TokenDelta("r0", "early ", (1,))]
        yield [TokenDelta("r0", "bird", (2,))]
        yield [Admitted("r1", 7)]
        yield [Finished("r0", "stop", Usage(7, 0, 2), 0.0)]
        yield [Finished("r1", "stop", Usage(7, 0, 0), 0.0)]

    generation, _, stats = _generation(script, choices=2)
    async with generation:
        await generation.admitted()
        assert await _text(generation) == "early bird"
    assert _record(stats).completion_tokens == 2


async def test_tokens_chosen_again_after_a_crash_are_counted_once() -> None:
    """Their scores had not been told, so another engine process chose them anew."""

    def script(_: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        yield [Admitted("r0", 7), TokenDelta("r0", "", (1, 2))]
        yield [TokenDelta("r0", "bird", (1, 2))]
        yield [Finished("r0", "stop", Usage(7, 0, 2), 0.0)]

    generation, _, stats = _generation(script)
    async with generation:
        await generation.admitted()
        assert await _text(generation) == "bird"
    assert _record(stats).completion_tokens == 2


@pytest.mark.parametrize("error", [ContextOverflow.of(70, 64), ModelLoading("not yet")])
async def test_a_refusal_is_raised_before_anything_is_answered(error: Exception) -> None:
    generation, engine, stats = _generation(lambda _: [error])
    with pytest.raises(type(error)):
        async with generation:
            await generation.admitted()
    assert engine.closed.is_set()
    assert stats.requests == [], "no prompt was read, no tokens are counted"


async def test_a_refusal_of_the_second_choice_refuses_the_request() -> None:
    overflow = ContextOverflow.of(70, 64)
    generation, engine, _ = _generation(lambda _: [[Admitted("r0", 70)], overflow], choices=2)
    with pytest.raises(ContextOverflow):
        async with generation:
            await generation.admitted()
    assert engine.closed.is_set()


async def test_a_dying_engine_is_an_error_after_what_it_said() -> None:
    def script(requests: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        yield from list(says("Hello")(requests))[:4]
        yield EngineError("it died")

    generation, _, stats = _generation(script)
    heard = ""
    with pytest.raises(EngineError, match="it died"):
        async with generation:
            await generation.admitted()
            async for events in generation:
                heard += "".join(e.text for e in events if isinstance(e, TokenDelta))
    assert heard == "Hel"
    assert _record(stats).outcome == "error"
    assert _record(stats).completion_tokens == 3


async def test_an_error_that_the_caller_turns_into_an_answer_is_still_an_error() -> None:
    generation, _, stats = _generation(lambda _: [[Admitted("r0", 7)], EngineError("it died")])
    async with generation:
        await generation.admitted()
        with pytest.raises(EngineError):
            await _text(generation)
    assert _record(stats).outcome == "error"


async def test_leaving_early_cancels_the_engine() -> None:
    forever = asyncio.Event()

    def script(requests: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        yield from list(says("Hello")(requests))[:3]
        yield forever

    generation, engine, stats = _generation(script)
    async with generation:
        await generation.admitted()
        async for _ in generation:
            break
        assert not engine.closed.is_set()
    assert engine.closed.is_set()
    assert _record(stats).outcome == "cancelled"
    assert _record(stats).completion_tokens == 1
    assert _record(stats).queue_seconds is None


@pytest.mark.parametrize("moments", [0, 1, 2])
async def test_a_cancelled_task_cancels_the_engine(moments: int) -> None:
    """The client goes away while the engine is silent, before or after admission."""
    silent, spoken = asyncio.Event(), asyncio.Event()

    def script(requests: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        yield from list(says("Hello")(requests))[:moments]
        spoken.set()
        yield silent

    generation, engine, stats = _generation(script)

    async def answer() -> None:
        async with generation:
            await generation.admitted()
            await _text(generation)

    task = asyncio.create_task(answer())
    async with asyncio.timeout(5):
        await spoken.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.closed.wait()
    assert [record.outcome for record in stats.requests] == ["cancelled"] * bool(moments)


async def test_gaps_are_between_the_tokens_of_one_choice() -> None:
    def script(_: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        yield [Admitted("r0", 7), Admitted("r1", 7)]
        yield [TokenDelta("r0", "a", (1,)), TokenDelta("r1", "b", (2,))]
        yield [TokenDelta("r0", "cd", (3, 4))]
        yield [TokenDelta("r0", "held back", ())]
        yield [Finished(id, "stop", Usage(7, 0, 2), 0.0) for id in ("r0", "r1")]

    generation, _, stats = _generation(script, choices=2)
    async with generation:
        await generation.admitted()
        await _text(generation)
    assert [tokens for _, tokens in stats.gaps] == [2]
    assert stats.gaps[0][0] >= 0
