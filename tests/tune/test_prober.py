"""Measuring processes that refuse, die and hang; none of them has a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.core.config import RunnerConfig
from server.llama.probe import MeasureSpeed
from server.tune import prober as module
from server.tune.prober import ProbeFailed, Prober

REQUEST = MeasureSpeed(RunnerConfig(path="/nowhere.gguf"))


@pytest.fixture
def prober() -> Iterator[Prober]:
    made = Prober()
    yield made
    made.close()


def play(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Each started process runs `code` instead of measuring."""
    script = folder / "measure.py"
    script.write_text(code)
    monkeypatch.setattr(module, "COMMAND", [sys.executable, str(script)])


def test_a_missing_model_is_refused_by_the_real_process(prober: Prober) -> None:
    with pytest.raises(ProbeFailed, match=r"/nowhere.gguf: llama.cpp cannot load it"):
        prober.ask(REQUEST)


def test_one_that_dies_is_told_and_replaced(
    prober: Prober, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "import os, sys; sys.stdin.readline(); sys.stderr.write('GGML_ASSERT\\n')"
    play(monkeypatch, tmp_path, code + "; sys.stderr.flush(); os.abort()")
    for _ in range(2):
        with pytest.raises(ProbeFailed, match=r"its process ended \(signal 6: GGML_ASSERT\)"):
            prober.ask(REQUEST)


def test_one_that_hangs_is_ended(
    prober: Prober, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_MEASURE_SECONDS", 0.3)
    play(monkeypatch, tmp_path, "import time; time.sleep(600)")
    with pytest.raises(ProbeFailed, match="signal 9"):
        prober.ask(REQUEST)


def test_nonsense_is_a_failure(
    prober: Prober, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    play(monkeypatch, tmp_path, "print('{}', flush=True); import sys; sys.stdin.read()")
    with pytest.raises(ProbeFailed, match="nonsense"):
        prober.ask(REQUEST)


def test_nothing_is_started_without_memory(prober: Prober, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: 1 << 20)
    with pytest.raises(ProbeFailed, match="too little memory"):
        prober.ask(REQUEST)
