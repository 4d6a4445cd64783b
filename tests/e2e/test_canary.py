"""No request ever sees another's tokens: ten thousand of them, cancelled, evicted and reused."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.core.types import Finished, GenerateRequest, SamplingParams, TextPiece, TokenDelta
from server.engine.process import EngineProcess
from tests.fakes import Recorder

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.timeout(240)]

REQUESTS = 10_000
SOURCES = ("slot", "copy", "merge", "snapshot")
TOGETHER = 24
NEW_TOGETHER = 4
"""Of a hundred requests so many come together with a prefix that nobody had before."""
PREFIXES = [("shared words " * length)[: 40 * length] for length in (0, 2, 5, 9)]
CONFIG = EngineConfig(
    runner="server.engine.echo:EchoRunner",
    model=RunnerConfig(path="echo:prefill=400000", slots=6, context=1024),
    scheduler=SchedulerConfig(prefix_cache_bytes=4_000),
)


def _request(number: int, chance: random.Random) -> tuple[GenerateRequest, str]:
    canary = f"canary {number} " + "é" * chance.randrange(4)
    new = number % 100 < NEW_TOGETHER
    prefix = f"new words {number // 100} " * 40 if new else chance.choice(PREFIXES)
    turns = f"<|turn|>system\n{prefix}<|end|><|turn|>user\n{canary}<|end|>"
    if chance.random() < 0.3:
        turns = turns.replace(canary, f"turn {number % 50}") + f"<|turn|>user\n{canary}<|end|>"
    prompt = (TextPiece(turns + "<|turn|>assistant\n"),)
    scope = "a" if new else chance.choice(["a", "b"])
    greedy = SamplingParams(temperature=0)
    return GenerateRequest(str(number), prompt, greedy, scope=scope), canary


async def _check(engine: EngineProcess, number: int, chance: random.Random) -> int:
    """One request, sometimes left early. Returns its cached tokens."""
    request, canary = _request(number, chance)
    leave_after = chance.randrange(12) if chance.random() < 0.25 else None
    text, cached = "", 0
    async with contextlib.aclosing(engine.generate(request)) as batches:
        async for events in batches:
            for event in events:
                if isinstance(event, TokenDelta):
                    text += event.text
                elif isinstance(event, Finished):
                    assert text == canary
                    cached = event.usage.cached_tokens
            assert canary.startswith(text)
            if leave_after is not None and len(text) >= leave_after:
                break
    return cached


async def test_ten_thousand_requests_keep_their_own_words() -> None:
    stats = Recorder()
    engine = EngineProcess("echo", CONFIG, stats)
    await engine.start()
    chance, gate = random.Random(7), asyncio.Semaphore(TOGETHER)

    async def one(number: int) -> int:
        async with gate:
            return await _check(engine, number, random.Random(chance.random()))

    try:
        cached = await asyncio.gather(*map(one, range(REQUESTS)))
    finally:
        await engine.stop()
    assert sum(cached) > 10 * REQUESTS
    reused = {name: sum(getattr(step.reused, name) for step in stats.steps) for name in SOURCES}
    assert all(reused.values()), reused
