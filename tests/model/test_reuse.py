"""Reuse changes what is computed, never what is said: on memory that can be cut or cannot."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.core.types import (
    EngineEvent,
    Finished,
    GenerateRequest,
    SamplingParams,
    TextPiece,
    TokenDelta,
    Usage,
)
from server.engine.process import EngineProcess
from tests.fakes import Recorder

from . import tiny

pytestmark = [pytest.mark.model, pytest.mark.anyio]

SLOTS = 3
TOPICS = ("rivers", "bread", "clocks", "mountains", "letters")


class Talker:
    """Asks an engine for greedy text. What one `scope` asked is never reused in another."""

    def __init__(self, engine: EngineProcess) -> None:
        self._engine = engine
        self._asked = 0

    async def ask(self, text: str | tuple[int, ...], scope: str, most: int) -> tuple[str, Usage]:
        self._asked += 1
        request = GenerateRequest(
            f"r{self._asked}",
            (TextPiece(text),) if isinstance(text, str) else (),
            prompt_tokens=() if isinstance(text, str) else text,
            sampling=SamplingParams(temperature=0),
            max_tokens=most,
            scope=scope,
        )
        events: list[EngineEvent] = []
        async for batch in self._engine.generate(request):
            events += batch
        finished = next(event for event in events if isinstance(event, Finished))
        said = "".join(event.text for event in events if isinstance(event, TokenDelta))
        return said, finished.usage

    async def ask_in_place(self, opening: str, text: str, most: int) -> str:
        """The same two pieces of prompt, one after the other in one slot: nothing is moved."""
        scope = f"in place {self._asked}"
        await self.ask(opening, scope, 1)
        said, usage = await self.ask(text, scope, most)
        assert usage.cached_tokens > 0
        return said

    async def ask_split(self, text: str, at: int, most: int) -> str:
        """The prompt in two pieces, the first of `at` tokens, in one slot: nothing is moved."""
        tokens = (await self._engine.tokenize((TextPiece(text),), begin=True)).tokens
        scope = f"split {self._asked}"
        await self.ask(tokens[:at], scope, 1)
        said, usage = await self.ask(tokens, scope, most)
        assert usage.cached_tokens == at
        return said

    async def ask_alone(self, text: str, most: int) -> str:
        said, usage = await self.ask(text, f"alone {self._asked}", most)
        assert usage.cached_tokens == 0
        return said


@pytest.fixture(params=["smollm2", "gemma3", "mamba", "lfm2"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A plain model, one of sliding windows, a recurrent one and a hybrid."""
    if request.param == "smollm2":
        return Path(request.getfixturevalue("model_path"))
    if request.param == "gemma3":
        return Path(request.getfixturevalue("gemma_path"))
    vocabulary = request.getfixturevalue("vocabulary_path")
    return tiny.write(tmp_path / "tiny.gguf", request.param, vocabulary)


def _config(file: Path, *, tiles: bool = True) -> EngineConfig:
    """Flash attention computes a prompt in tiles, whose sums depend on how it was cut."""
    return EngineConfig(
        runner="server.llama.runner:LlamaRunner",
        model=RunnerConfig(path=str(file), slots=SLOTS, context=1024, flash_attention=tiles),
        scheduler=SchedulerConfig(prefix_cache_bytes=256 << 20, draft=False),
    )


async def _talking(
    file: Path, stats: Recorder, talk: Callable[[Talker], object], *, tiles: bool = True
) -> None:
    engine = EngineProcess("model", _config(file, tiles=tiles), stats)
    await engine.start()
    try:
        await talk(Talker(engine))  # type: ignore[misc]
    finally:
        await engine.stop()


def _opening(topic: str) -> str:
    return f"Here is what I know about {topic}." + f" The first thing about {topic} is old." * 12


async def test_more_conversations_than_slots_are_all_found_again(file: Path) -> None:
    stats = Recorder()

    async def talk(talker: Talker) -> None:
        openings = {topic: _opening(topic) for topic in TOPICS}
        for topic, opening in openings.items():
            await talker.ask(opening, topic, 1)
        for topic, opening in openings.items():
            longer = opening + " The second thing is that"
            said, usage = await talker.ask(longer, topic, 12)
            assert usage.cached_tokens > 0.8 * usage.prompt_tokens
            assert said == await talker.ask_in_place(opening, longer, 12)

    await _talking(file, stats, talk)
    assert sum(step.reused.snapshot for step in stats.steps) > 0
    assert not stats.restarts


async def test_one_prompt_several_times_at_once(file: Path) -> None:
    async def talk(talker: Talker) -> None:
        text = _opening("forests") + " And so"
        expected = await talker.ask_alone(text, 10)
        answers = await asyncio.gather(*(talker.ask(text, "us", 10) for _ in range(SLOTS)))
        assert [said for said, _ in answers] == [expected] * SLOTS

    await _talking(file, Recorder(), talk)


@pytest.mark.parametrize("tiles", [True, False])
async def test_hundreds_of_cancelled_and_reused_requests_leave_no_trace(
    model_path: Path, tiles: bool
) -> None:
    chance = random.Random(3)
    stats = Recorder()
    prompts = [_opening(topic)[: chance.randrange(60, 400)] for topic in TOPICS for _ in range(3)]

    async def talk(talker: Talker) -> None:
        expected = {text: await talker.ask_alone(text, 6) for text in prompts}
        gate = asyncio.Semaphore(6)

        splits: list[tuple[str, int, str]] = []

        async def one(text: str) -> bool:
            async with gate:
                asking = asyncio.ensure_future(talker.ask(text, "us", 6))
                if chance.random() < 0.3:
                    await asyncio.wait((asking,), timeout=chance.uniform(0.0, 0.2))
                    asking.cancel()
                (said,) = await asyncio.gather(asking, return_exceptions=True)
                if isinstance(said, BaseException):
                    return True
                foreign = [topic for topic in TOPICS if topic not in text and topic in said[0]]
                assert not foreign, (text, said)
                if said[0] != expected[text]:
                    splits.append((text, said[1].cached_tokens, said[0]))
                return said[0] == expected[text]

        same = await asyncio.gather(*(one(chance.choice(prompts)) for _ in range(300)))
        if not tiles:
            # Nothing but single tokens is summed in another order: what was reused says what is
            # said alone, or what the same two pieces say where nothing is moved.
            split = [said == await talker.ask_split(text, at, 6) for text, at, said in splits if at]
            assert sum(same) + sum(split) >= 0.97 * len(same)
        for text, said in expected.items():
            assert said == await talker.ask_alone(text, 6)

    await _talking(model_path, stats, talk, tiles=tiles)
    assert sum(step.reused.copy + step.reused.slot for step in stats.steps) > 0
