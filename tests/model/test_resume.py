"""A real engine process ends in the middle: seeds, grammars and penalties go on where they were."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.core.types import (
    EngineEvent,
    Finished,
    GenerateRequest,
    SamplingParams,
    TextPiece,
    TokenDelta,
)
from server.engine.process import EngineProcess
from tests.fakes import Recorder

pytestmark = [pytest.mark.model, pytest.mark.anyio]

PROMPT = (
    TextPiece("<|im_start|>user\n"),
    TextPiece("Write about a fox and three words: red, river, run."),
    TextPiece("<|im_end|>\n<|im_start|>assistant\n"),
)
CARD = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
SEEDED = SamplingParams(temperature=0.9, top_p=0.95, seed=11)
VARIANTS: dict[str, dict[str, Any]] = {
    "greedy": {"sampling": SamplingParams(temperature=0)},
    "seeded": {"sampling": SEEDED},
    "penalised": {
        "sampling": SamplingParams(
            temperature=0.9, seed=3, frequency_penalty=0.7, repeat_penalty=1.2
        )
    },
    "grammar": {"sampling": SEEDED, "grammar": f"start: %json {json.dumps(CARD)}"},
    "scored": {"sampling": SEEDED, "logprobs": 1},
}
TOKENS = 48


async def _said(
    engine: EngineProcess, name: str, more: dict[str, Any], kill_after: int | None
) -> tuple[list[int], str, int]:
    """Tokens, text, and after how many tokens the engine was ended."""
    tokens: list[int] = []
    text, killed = "", 0
    end: Finished | None = None
    async for events in engine.generate(GenerateRequest(name, PROMPT, max_tokens=TOKENS, **more)):
        for event in events:
            tokens, text, end = _heard(event, tokens, text, end)
        if kill_after is not None and not killed and len(tokens) >= kill_after:
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            killed = len(tokens)
    assert end is not None
    if "logprobs" not in more:
        assert end.usage.completion_tokens == len(tokens), "a token lost, or told twice"
    return tokens, text, killed


def _heard(
    event: EngineEvent, tokens: list[int], text: str, end: Finished | None
) -> tuple[list[int], str, Finished | None]:
    if isinstance(event, TokenDelta):
        return tokens + list(event.tokens), text + event.text, end
    return tokens, text, event if isinstance(event, Finished) else end


@pytest.mark.parametrize("variant", VARIANTS)
async def test_an_answer_goes_on_as_it_would_have(variant: str, model_path: Path) -> None:
    """The prompt is computed again in other pieces, so sums may differ in the last bits."""
    stats = Recorder()
    engine = EngineProcess(
        "model",
        EngineConfig(
            "server.llama.runner:LlamaRunner",
            RunnerConfig(path=str(model_path), slots=2, context=512),
            SchedulerConfig(draft=False),
        ),
        stats,
    )
    async with asyncio.timeout(100):
        await engine.start()
        try:
            whole, text, _ = await _said(engine, "whole", VARIANTS[variant], None)
            for kill_after in (1, 7):
                _, again, killed = await _said(
                    engine, f"k{kill_after}", VARIANTS[variant], kill_after
                )

                assert killed
                assert again == text
        finally:
            await engine.stop()
    assert len(stats.restarts) == 2
    assert len(whole) > 10
