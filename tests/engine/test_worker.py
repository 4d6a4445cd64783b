"""The step loop itself, one step at a time."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.core.plan import BatchPlan, StepResult
from server.core.types import GenerateRequest, SamplingParams, Started, TextPiece, TokenDelta
from server.engine import reporter
from server.engine.echo import EchoRunner
from server.engine.frames import EnginePipe, Report, StepFrame
from server.engine.sequence import Sequence
from server.engine.worker import Worker

CONFIG = EngineConfig("", RunnerConfig("echo:", context=2048, slots=2), SchedulerConfig())


class Ledger(EnginePipe):
    """What happened, in order: a kind of step, or `text` or `started NAME` of a frame."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.entries: list[str] = []

    def send(self, message: Report) -> None:
        assert isinstance(message, StepFrame)
        for event in message.events:
            if isinstance(event, Started):
                self.entries.append(f"started {event.id}")
            elif isinstance(event, TokenDelta):
                self.entries.append("text")


class Noting(EchoRunner):
    """Tells the ledger of its steps, and that each token took 2 ms."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def run(self, plan: BatchPlan) -> StepResult:
        self._ledger.entries.append(plan.kind)
        result = super().run(plan)
        return StepResult(result.sampled, 0.002 * (plan.decode_tokens + plan.prefill_tokens))


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(end) for end in socket.socketpair())
        made = Ledger(theirs)
        stack.callback(made._reader.close)
        yield made
        ours.close()


def test_text_never_waits_for_a_prompt(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "FRAME_SECONDS", 1e9)
    runner = Noting(ledger)
    runner.load(CONFIG.model)
    worker = Worker(ledger, runner, CONFIG)
    inbox: queue.SimpleQueue[Sequence] = worker._inbox
    for name, length in (("stream", 200), ("prompt", 1500)):
        text = (TextPiece(f"<|turn|>user\n{'x' * length}"), TextPiece("<|end|><|turn|>assistant\n"))
        request = GenerateRequest(name, text, SamplingParams(temperature=0), 150)
        inbox.put(Sequence(request, runner.tokenize(text), 0.0))
        for _ in range(4):
            worker.step()
    for _ in range(40):
        worker.step()
    turns = "".join(entry[0] for entry in ledger.entries)
    assert "dp" not in turns, f"a prompt's turn came before the text of the step before it: {turns}"
    assert turns.count("dtp") > 5


def test_who_is_computed_from_now_on_is_told_before_the_step(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a step that ends the process would not be known to have had them: also one that decodes,
    where a prompt is known but for its last token."""
    monkeypatch.setattr(reporter, "FRAME_SECONDS", 1e9)
    runner = Noting(ledger)
    runner.load(CONFIG.model)
    worker = Worker(ledger, runner, CONFIG)
    text = (TextPiece(f"<|turn|>user\n{'x' * 100}<|end|><|turn|>assistant\n"),)
    for name in ("first", "again"):
        request = GenerateRequest(name, text, SamplingParams(temperature=0), 2)
        worker._inbox.put(Sequence(request, runner.tokenize(text), 0.0))
        ledger.entries.clear()
        worker.step()
        assert ledger.entries[0] == f"started {name}", ledger.entries
        while worker._scheduler.running:
            worker.step()
    assert ledger.entries[1] == "decode", "the second one had nothing to read"
