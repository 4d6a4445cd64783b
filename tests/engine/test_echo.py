"""The echo runner in an engine process of its own: the worker's whole loop, without a model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.core.errors import (
    ContextOverflow,
    EngineError,
    InvalidRequest,
    ModelFileError,
    ModelLoading,
)
from server.core.plan import BatchPlan, Row
from server.core.types import (
    Admitted,
    EngineEvent,
    Finished,
    SamplingParams,
    Started,
    TextPiece,
    TokenDelta,
    Usage,
)
from server.engine.echo import EchoRunner
from server.engine.process import EngineProcess
from tests.fakes import Recorder

from .asking import ask

pytestmark = pytest.mark.anyio

DEADLINE = 10.0


def _config(path: str = "echo:", runner: str = "server.engine.echo:EchoRunner") -> EngineConfig:
    return EngineConfig(runner, RunnerConfig(path, context=256, slots=4), SchedulerConfig())


@contextlib.asynccontextmanager
async def _started(config: EngineConfig, stats: Recorder) -> AsyncIterator[EngineProcess]:
    engine = EngineProcess("echo", config, stats)
    async with asyncio.timeout(DEADLINE):
        await engine.start()
    try:
        yield engine
    finally:
        async with asyncio.timeout(DEADLINE):
            await engine.stop()


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[EngineProcess]:
    """One engine for the tests that leave it as they found it."""
    async with _started(_config(), Recorder()) as engine:
        yield engine


@pytest.fixture
async def slow() -> AsyncIterator[tuple[EngineProcess, Recorder]]:
    stats = Recorder()
    async with _started(_config("echo:rate=50"), stats) as engine:
        yield engine, stats


@dataclass
class _Answer:
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    end: Finished | None = None


async def _answers(events: AsyncGenerator[list[EngineEvent]]) -> dict[str, _Answer]:
    answers: dict[str, _Answer] = {}
    async with asyncio.timeout(DEADLINE):
        async for batch in events:
            for event in batch:
                answer = answers.setdefault(event.id, _Answer())
                if isinstance(event, TokenDelta):
                    answer.text += event.text
                    answer.tokens += event.tokens
                elif isinstance(event, Finished):
                    answer.end = event
    return answers


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not holds():
            await asyncio.sleep(0.01)


async def test_it_answers_with_what_was_said(shared: EngineProcess) -> None:
    text = "the quick brown 🦊 jumps — 跳!"
    answer = (await _answers(shared.generate(ask(text))))["r"]
    assert answer.text == text
    assert bytes(answer.tokens) == text.encode()
    assert answer.end is not None
    assert answer.end.reason == "stop"
    prompt = 1 + len("user\n") + len(text.encode()) + 2 + len("assistant\n")
    assert answer.end.usage == Usage(prompt, answer.end.usage.cached_tokens, len(text.encode()))


async def test_every_event_is_in_order(shared: EngineProcess) -> None:
    events = [event async for batch in shared.generate(ask("abc")) for event in batch]
    assert isinstance(events[0], Admitted)
    assert isinstance(events[-1], Finished)
    assert isinstance(events[1], Started)
    assert all(isinstance(event, TokenDelta) for event in events[2:-1])


async def test_the_limit_ends_it_and_counts_its_tokens(shared: EngineProcess) -> None:
    answer = (await _answers(shared.generate(ask("abcdef", max_tokens=3))))["r"]
    assert (answer.text, answer.end and answer.end.reason) == ("abc", "length")
    assert answer.end is not None and answer.end.usage.completion_tokens == 3


async def test_the_end_of_the_slot_is_a_limit_too(shared: EngineProcess) -> None:
    answer = (await _answers(shared.generate(ask("x" * 200))))["r"]
    assert answer.end is not None and answer.end.reason == "length"
    assert answer.end.usage.prompt_tokens + answer.end.usage.completion_tokens == 256


@pytest.mark.parametrize("size", [256 - 18, 300, 1_000])
async def test_a_prompt_longer_than_a_slot_is_refused(shared: EngineProcess, size: int) -> None:
    with pytest.raises(ContextOverflow) as refusal:
        await _answers(shared.generate(ask("x" * size)))
    assert str(size + 18) in refusal.value.message
    assert "256" in refusal.value.message


async def test_a_stop_string_ends_the_text_before_it(shared: EngineProcess) -> None:
    answer = (await _answers(shared.generate(ask("one two STOP three", stop=("STOP",)))))["r"]
    assert answer.text == "one two "
    assert answer.end is not None and answer.end.reason == "stop"
    assert answer.end.usage.completion_tokens == len("one two STOP")


async def test_a_prompt_seen_before_is_cached_but_for_one_token(shared: EngineProcess) -> None:
    asked = ask("seen before, in the very same words", scope="cached")
    first = (await _answers(shared.generate(asked)))["r"].end
    again = (await _answers(shared.generate(asked)))["r"].end
    assert first is not None and again is not None
    assert first.usage.cached_tokens == 0
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1


async def test_many_at_once_get_their_own_words(shared: EngineProcess) -> None:
    words = {f"r{i}": f"canary-{i}-" + "x" * i for i in range(20)}
    answers = await _answers(shared.generate(*(ask(w, name) for name, w in words.items())))
    assert {name: answer.text for name, answer in answers.items()} == words


async def test_a_seed_moves_the_beginning(shared: EngineProcess) -> None:
    sampling = SamplingParams(temperature=1.0, seed=2)
    answer = (await _answers(shared.generate(ask("abcdef", sampling=sampling))))["r"]
    assert answer.text == "cdefab"


async def test_closing_the_generator_frees_the_slot(
    slow: tuple[EngineProcess, Recorder],
) -> None:
    engine, stats = slow
    events = engine.generate(ask("x" * 200))
    async with asyncio.timeout(DEADLINE):
        await anext(events)
        await _until(lambda: bool(stats.steps) and stats.steps[-1].running == 1)
    await events.aclose()
    await _until(lambda: stats.steps[-1].running == 0)
    assert len(stats.steps) < 150, "it ran to its end"


async def test_a_stopped_engine_leaves_no_process() -> None:
    before = asyncio.all_tasks()
    async with _started(_config(), Recorder()) as engine:
        await _answers(engine.generate(ask("Hi")))
        pid = engine.pid
    assert pid is not None and not psutil.pid_exists(pid)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before, "nor a task"


async def test_a_model_that_cannot_be_loaded_says_why() -> None:
    engine = EngineProcess("echo", _config("not-an-echo"), Recorder())
    with pytest.raises(ModelFileError, match="wants a path like echo"):
        await engine.start()
    assert engine.pid is not None and not psutil.pid_exists(engine.pid)


async def test_a_row_that_fails_costs_its_own_request_only() -> None:
    config = _config("echo:rate=100", "tests.fakes:FailingRunner")
    async with _started(config, Recorder()) as engine:
        well = asyncio.create_task(_answers(engine.generate(ask("x" * 50, "well"))))
        with pytest.raises(EngineError, match="no room for this row"):
            await _answers(engine.generate(ask("bad!", "bad")))
        assert (await well)["well"].text == "x" * 50


async def test_a_bug_off_the_step_loop_does_not_leave_a_deaf_engine() -> None:
    """The reader thread is the engine's ear: without it requests would wait for ever."""
    stats = Recorder()
    async with _started(_config(runner="tests.fakes:DeafRunner"), stats) as engine:
        with pytest.raises(EngineError):
            await _answers(engine.generate(ask("crash")))
        await _until(lambda: engine.ready)
        assert (await _answers(engine.generate(ask("well"))))["r"].text == "well"


@pytest.mark.parametrize("position", [1, 5])
def test_a_plan_that_does_not_fit_the_memory_is_refused(position: int) -> None:
    runner = EchoRunner()
    runner.load(RunnerConfig("echo:", context=8, slots=1))
    with pytest.raises(RuntimeError, match="slot 0 holds 0 tokens"):
        runner.run(BatchPlan((), (Row(0, position, [1, 2]),)))
    with pytest.raises(RuntimeError, match="slot 0"):
        runner.run(BatchPlan((), (Row(0, 0, list(range(9))),)))


async def test_text_becomes_tokens_and_text_again_beside_what_runs(
    slow: tuple[EngineProcess, Recorder],
) -> None:
    engine, _ = slow
    events = engine.generate(ask("x" * 200))
    async with asyncio.timeout(DEADLINE):
        await anext(events)
        there = await engine.tokenize((TextPiece("<|end|>ä"), TextPiece("<|end|>", plain=True)))
        assert there.tokens == (256, *"ä<|end|>".encode())
        assert (there.pieces[0], there.pieces[1]) == (b"<|end|>", b"\xc3")
        back = await engine.detokenize(there.tokens)
        assert (back.text, back.tokens) == ("<|end|>ä<|end|>", there.tokens)
        assert (await engine.tokenize(())).tokens == (await engine.detokenize(())).tokens == ()
    await events.aclose()


@pytest.mark.parametrize("token", [-1, 300, 2**31, 2**63 - 1])
async def test_a_token_outside_the_vocabulary_is_refused(shared: EngineProcess, token: int) -> None:
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(InvalidRequest, match="from 0 to") as refusal:
            await shared.detokenize((0, token))
        assert refusal.value.param == "tokens[1]"


async def test_a_dying_engine_leaves_no_question_open() -> None:
    async with _started(_config(runner="tests.fakes:DeafRunner"), Recorder()) as engine:
        with pytest.raises(EngineError):
            async with asyncio.timeout(DEADLINE):
                await engine.tokenize((TextPiece("crash"),))
        with pytest.raises(ModelLoading):
            await engine.detokenize((1,))


async def test_a_prompt_far_too_long_is_refused_without_being_tokenised(
    shared: EngineProcess,
) -> None:
    with pytest.raises(ContextOverflow) as refusal:
        await _answers(shared.generate(ask("x" * 1_000_000)))
    assert "at least" in refusal.value.message


async def test_it_runs_our_code_whatever_lies_in_the_directory_it_starts_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("server.py", "msgspec.py", "tests.py"):
        (tmp_path / module).write_text("raise SystemExit(f'{__file__} is somebody else's')")
    monkeypatch.chdir(tmp_path)
    async with _started(_config(), Recorder()) as engine:
        assert (await engine.tokenize((TextPiece("hello"),))).text == "hello"
