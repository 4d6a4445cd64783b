"""A filler row changes nothing: not its neighbours' logits, not what its slot holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.core.config import RunnerConfig
from server.core.plan import BatchPlan, Row, Trim
from server.core.types import GenerateRequest, SamplingParams
from server.llama.runner import LlamaRunner

pytestmark = pytest.mark.model

PROMPTS = [[1000 + 37 * n + slot for n in range(60 + 10 * slot)] for slot in range(3)]


class Watched(LlamaRunner):
    """Keeps a copy of all logits of the last step."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def _logits(self, output: int) -> np.ndarray | None:
        logits = super()._logits(output)
        if logits is not None:
            self.seen.append(logits.copy())
        return logits

    def release(self) -> None:
        """The process that checks grammars lives as long as the runner."""
        self._grammars.close()

    def step(self, *rows: Row) -> list[np.ndarray]:
        self.seen = []
        self.run(BatchPlan(memory=(), rows=rows))
        return list(self.seen)

    def start_over(self) -> None:
        greedy = GenerateRequest("a", (), SamplingParams(temperature=0))
        for slot, prompt in enumerate(PROMPTS):
            self.open(slot, greedy, prompt, None)
            self.run(BatchPlan(memory=(Trim(slot, 0),), rows=(Row(slot, 0, prompt, True),)))


@pytest.fixture
def runner(model_path: Path) -> Iterator[Watched]:
    made = Watched()
    made.load(RunnerConfig(path=str(model_path), context=512, slots=3, threads=2))
    yield made
    made.release()


def _neighbours(token: int, at: int, between: Row) -> tuple[Row, Row, Row]:
    first, last = (Row(slot, len(PROMPTS[slot]) + at, [token], True) for slot in (0, 2))
    return first, between, last


def test_a_filler_changes_nothing(runner: Watched) -> None:
    end = len(PROMPTS[1])
    runner.start_over()
    with_filler = runner.step(*_neighbours(5, 0, Row(1, end, [9], filler=True)))
    then = runner.step(*_neighbours(6, 1, Row(1, end, [7], True)))
    runner.start_over()
    with_real = runner.step(*_neighbours(5, 0, Row(1, end, [8], True)))
    runner.run(BatchPlan(memory=(Trim(1, end),), rows=()))
    after_real = runner.step(*_neighbours(6, 1, Row(1, end, [7], True)))
    assert np.array_equal(with_filler[0], with_real[0])
    assert np.array_equal(with_filler[1], with_real[2])
    assert len(then) == 3
    for mine, other in zip(then, after_real, strict=True):
        assert np.array_equal(mine, other)
