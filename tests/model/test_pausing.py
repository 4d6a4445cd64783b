"""A real answer that waits for its reader goes on as if it had not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.core.types import GenerateRequest, SamplingParams, TextPiece, TokenDelta
from server.engine.process import EngineProcess
from tests.fakes import Recorder

pytestmark = [pytest.mark.model, pytest.mark.anyio]

PROMPT = (TextPiece("Once upon a time there was a fox who"),)
TOKENS = 120


def _ask(name: str) -> GenerateRequest:
    seeded = SamplingParams(temperature=0.8, seed=5)
    return GenerateRequest(name, PROMPT, seeded, max_tokens=TOKENS, logprobs=20)


async def _tokens(engine: EngineProcess, stats: Recorder, *, pausing: bool) -> list[int]:
    tokens: list[int] = []
    async for events in engine.generate(_ask("r")):
        tokens += [t for event in events if isinstance(event, TokenDelta) for t in event.tokens]
        if pausing and tokens:
            pausing, steps = False, -1
            while steps != len(stats.steps):
                steps = len(stats.steps)
                await asyncio.sleep(0.5)
            assert stats.steps[-1].running == 1, "it was not paused"
    return tokens


async def test_a_paused_answer_goes_on_where_it_was(model_path: Path) -> None:
    stats = Recorder()
    config = EngineConfig(
        "server.llama.runner:LlamaRunner",
        RunnerConfig(str(model_path), context=512, slots=2),
        SchedulerConfig(draft=False),
    )
    engine = EngineProcess("model", config, stats)
    async with asyncio.timeout(120):
        await engine.start()
        try:
            whole = await _tokens(engine, stats, pausing=False)
            paused = await _tokens(engine, stats, pausing=True)
        finally:
            await engine.stop()
    assert len(whole) == TOKENS and paused == whole
