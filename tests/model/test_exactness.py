"""Fillers and moved prefixes change nothing, bit for bit, where batches have the same shape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.core.config import RunnerConfig
from server.core.plan import BatchPlan, Copy, MemoryOp, Restore, Row, Save, Trim
from server.core.types import GenerateRequest, SamplingParams
from server.llama.runner import LlamaRunner

from . import tiny

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

    def step(self, *rows: Row, memory: tuple[MemoryOp, ...] = ()) -> list[np.ndarray]:
        self.seen = []
        self.run(BatchPlan(memory=memory, rows=rows))
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


@pytest.mark.parametrize("length", [5, 8, 17, 31, 33, 48])
def test_a_moved_prefix_is_the_one_computed_in_place(runner: Watched, length: int) -> None:
    """Out of a slot that went on to something else, and out of host memory."""
    prefix, rest, other = ([base + 7 * n for n in range(70)] for base in (2000, 9000, 20_000))
    runner.start_over()
    runner.step(memory=tuple(Trim(slot, 0) for slot in range(3)))
    runner.step(Row(0, 0, prefix[:length]))
    in_place = runner.step(Row(0, length, rest, True))
    runner.step(Row(0, 0, prefix[:length]), memory=(Trim(0, 0),))
    runner.step(Row(0, length, other))
    copied = runner.step(Row(1, length, rest, True), memory=(Copy(0, 1, length),))
    restored = runner.step(
        Row(2, length, rest, True), memory=(Save(0, length), Restore(2, length, length))
    )
    assert np.array_equal(in_place[0], copied[0])
    assert np.array_equal(in_place[0], restored[0])


@pytest.mark.parametrize("architecture", ["llama", "mamba", "lfm2"])
def test_a_kept_state_is_as_large_as_the_books_say(
    architecture: str, vocabulary_path: Path, tmp_path: Path
) -> None:
    runner = Watched()
    path = tiny.write(tmp_path / "tiny.gguf", architecture, vocabulary_path)
    runner.load(RunnerConfig(path=str(path), context=512, slots=1))
    try:
        prompt = [7 + n % 50 for n in range(200)]
        runner.open(0, GenerateRequest("a", (), SamplingParams(temperature=0)), prompt, None)
        runner.step(Row(0, 0, prompt, True))
        runner.run(BatchPlan(memory=(Save(0, 1),)))
        size = runner.memory.state_bytes + len(prompt) * runner.memory.token_bytes
        kept = runner._states._kept[1]
        assert abs(kept.nbytes - size) < 0.02 * size + 64
        assert kept.base is None or kept.base.nbytes < 1.1 * size + (64 << 10) + 200 * 16
    finally:
        runner.release()
