"""The engine process: `python -m server.engine.worker FD`.

Main thread: receive → schedule → run → update → send. `intake` takes frames off the pipe, checks
and tokenises requests and compiles grammars in its own threads, so that the step loop never does.
A model that makes vectors has a loop of its own (`embedding`) on the same pipe and under the same
supervision.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import logging
import os
import queue
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Protocol, cast

from msgspec.structs import replace

from server.core.config import EngineConfig
from server.core.errors import StartupError
from server.core.plan import BatchPlan, Row, StepResult, TokenScore
from server.core.protocol import EmbedRunner, ModelRunner
from server.core.secrecy import leave_no_dump
from server.core.stats import Reuse, StepStats
from server.core.types import (
    Failed,
    Finished,
    FinishReason,
    ModelInfo,
    PromptScored,
    Started,
    Usage,
)

from . import output
from .answer import PromptScores
from .embedding import EmbedLoop
from .faults import FaultyRunner
from .frames import Cancel, EnginePipe, Leave, LoadFailed, Pause, Ready, Start
from .intake import Intake, Message
from .outliving import Outliving, Restored
from .reading import ResidentMemory
from .reporter import Reporter
from .scheduler import Scheduler
from .sequence import Sequence

log = logging.getLogger("ingle.engine")

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_WORSE = 300
"""Of 1000, in the kernel's choice of what to end when memory is out."""


class Worker:
    """Runs the loop over one loaded runner until the pipe closes."""

    def __init__(self, pipe: EnginePipe, runner: ModelRunner, config: EngineConfig) -> None:
        self._runner = runner
        self._context = runner.info.context
        self._scheduler = Scheduler(
            config.scheduler,
            runner.memory,
            slots=runner.info.slots,
            context=self._context,
        )
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        drafts = config.scheduler.draft and runner.memory.trim
        self.intake = Intake(pipe, runner, self._inbox, drafts=drafts, position=self._position)
        self._reporter = Reporter(pipe)
        self._resident = ResidentMemory()
        self._patience = config.scheduler.watchdog_seconds
        self._outliving = Outliving(config.store, runner, self._scheduler)
        self._leaving = False
        self._accepted = 0
        self._taken = 0
        """Sequences out of the inbox so far."""

    def _position(self) -> int:
        """Of who comes now; the sequences in the inbox came before."""
        return self._scheduler.position(self.intake.sequences - self._taken)

    def start(self) -> None:
        self.intake.start()

    def restore(self) -> Restored:
        """What the last engine of this model left, before anybody asks."""
        return self._outliving.restore()

    def loop(self) -> None:
        """Until it is told to leave."""
        while not self._leaving:
            self.step()
        self._outliving.keep()

    def step(self) -> None:
        started = self._take_inbox()
        plan, joined = self._scheduler.schedule(time.monotonic())
        for sequence in joined:
            assert sequence.slot is not None
            self._runner.open(sequence.slot, sequence.request, sequence.prompt, sequence.grammar)
            self._reporter.say(Started(sequence.id))
        if joined or plan.kind == "prefill":
            self._reporter.flush()
        longest = self._scheduler.cost.longest(plan)
        if longest > self._patience:
            self._reporter.ask_patience(longest)
        result = self._runner.run(plan) if plan.rows or plan.memory else StepResult({}, 0.0)
        self._update(plan, result)
        self._report(plan, result, started)

    def _take_inbox(self) -> float:
        """Take all that arrived; wait for the first when idle. Returns when the step began."""
        if self._scheduler.idle:
            self._receive(self._inbox.get())
        started = time.monotonic()
        while not self._inbox.empty():
            self._receive(self._inbox.get())
        return started

    def _receive(self, message: Message) -> None:
        if isinstance(message, Sequence):
            if message.request.resume is not None:
                message.answer.resume(message.request.resume, self._runner)
            self._scheduler.add(message)
            self._taken += 1
            return
        if isinstance(message, Leave):
            self._leaving = True
            return
        sequence = self._scheduler.find(message.id)
        if sequence is None:
            return
        if isinstance(message, Cancel):
            self._reporter.forget(sequence.id)
            self._end(sequence)
        else:
            sequence.paused = isinstance(message, Pause)

    def _update(self, plan: BatchPlan, result: StepResult) -> None:
        rows = {row.slot: row for row in plan.rows}
        for slot, scores in result.prompt_scores.items():
            self._book_scores(rows[slot], scores)
        for sequence, tokens in self._scheduler.update(plan, result):
            assert sequence.slot is not None
            self._accepted += min(len(tokens) - 1, rows[sequence.slot].draft)
            self._advance(sequence, tokens, result)
        for slot, error in result.failed.items():
            lost = self._scheduler.slots[slot].sequence
            if lost is not None:
                self._reporter.forget(lost.id)
                self._reporter.say(Failed.of(lost.id, error))
                self._runner.close(slot)
                self._scheduler.drop(lost, time.monotonic())

    def _book_scores(self, row: Row, scores: list[TokenScore]) -> None:
        sequence = self._scheduler.slots[row.slot].sequence
        assert sequence is not None
        self._scored(sequence).add(row.position, scores)

    def _scored(self, sequence: Sequence) -> PromptScores:
        if sequence.prompt_scores is None:
            sequence.prompt_scores = PromptScores(sequence.prompt, self._runner)
        return sequence.prompt_scores

    def _advance(self, sequence: Sequence, tokens: list[int], result: StepResult) -> None:
        """Add tokens until one ends the sequence. An end token is no part of it."""
        slot = sequence.slot
        assert slot is not None
        first = not sequence.generated
        if sequence.owes_scores and first:
            self._reporter.say(PromptScored(sequence.id, *self._scored(sequence).whole()))
        answer = sequence.answer
        answer.draws = result.draws.get(slot, 0)
        scores = result.scores.get(slot, [])
        reason = sequence.out_of_room(self._context)
        for index, token in enumerate(tokens):
            if reason is not None:
                break
            last = index == len(tokens) - 1
            if self._ends(sequence, token, last and slot in result.ended):
                reason = "stop"
                break
            sequence.tokens.append(token)
            answer.add(token, scores[index] if index < len(scores) else None, self._runner)
            if answer.stopped or (last and slot in result.complete):
                reason = "stop"
            else:
                reason = sequence.out_of_room(self._context)
        if reason is not None:
            self._finish(sequence, reason)
        else:
            self._reporter.grew(sequence.id, answer, first=first)

    def _ends(self, sequence: Sequence, token: int, ended: bool) -> bool:
        """In a grammar a stop token may be part of the text: the runner knows."""
        if sequence.grammar is not None:
            return ended
        return self._runner.is_end(token) or token in sequence.request.stop_tokens

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.answer.finish()
        self._reporter.finished(sequence.id, sequence.answer)
        cached = min(sequence.cached, sequence.prompt_length)
        usage = Usage(sequence.prompt_length, cached, sequence.generated)
        queued = sequence.started - sequence.arrived
        self._reporter.say(Finished(sequence.id, reason, usage, queued))
        self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        if sequence.slot is not None:
            self._runner.close(sequence.slot)
        self._scheduler.remove(sequence, time.monotonic())

    def _report(self, plan: BatchPlan, result: StepResult, started: float) -> None:
        scheduler = self._scheduler
        running = len(scheduler.running)
        reuse, scheduler.reuse = scheduler.reuse, Reuse()
        accepted, self._accepted = self._accepted, 0
        stats = StepStats(
            step_seconds=time.monotonic() - started,
            run_seconds=result.seconds,
            decode_tokens=plan.decode_tokens,
            prefill_tokens=plan.prefill_tokens,
            batch_size=len(plan.rows),
            running=running,
            waiting=len(scheduler.waiting),
            slots_busy=running,
            slots_total=len(scheduler.slots),
            kv_used=sum(len(slot.tokens) for slot in scheduler.slots),
            kv_total=len(scheduler.slots) * self._context,
            snapshot_bytes=scheduler.snapshots.size,
            drafted=plan.draft_tokens,
            accepted=accepted,
            reused=reuse,
            resident_bytes=self._resident.bytes(started),
        )
        self._reporter.step(stats, idle=self._scheduler.idle)


class Loop(Protocol):
    """What a worker does with its runner."""

    def start(self) -> None:
        """Begin to read the pipe, in threads of its own."""
        ...

    def loop(self) -> None:
        """Never returns."""
        ...


def main() -> None:
    _die_with_parent()
    _die_before_parent()
    leave_no_dump()
    output.configure()
    pipe = EnginePipe(socket.socket(fileno=int(sys.argv[1])))
    start = pipe.receive()
    if not isinstance(start, Start):
        return
    try:
        runner = _runner(start)
        runner.load(start.config.model)
    except StartupError as error:
        pipe.send(LoadFailed(type(error).__name__, error.message))
        return
    except Exception as error:
        log.exception("the model cannot be loaded", extra={"reason": str(error)})
        pipe.send(LoadFailed("StartupError", f"the engine cannot load: {type(error).__name__}"))
        return
    worker = _loop(pipe, runner, start.config)
    restored = worker.restore() if isinstance(worker, Worker) else Restored()
    worker.start()
    gc.collect()
    gc.freeze()
    pipe.send(Ready(_info(runner, start.config, restored)))
    code = 1
    try:
        worker.loop()
        code = 0
    except Exception:
        log.exception("the engine loop broke")
    finally:
        os._exit(code)


def _runner(start: Start) -> ModelRunner | EmbedRunner:
    module, _, name = start.config.runner.partition(":")
    runner: ModelRunner | EmbedRunner = getattr(importlib.import_module(module), name)()
    if start.config.faults:
        return cast(ModelRunner, FaultyRunner(runner, start.config.faults, start.number))
    return runner


def _info(runner: ModelRunner | EmbedRunner, config: EngineConfig, restored: Restored) -> ModelInfo:
    if runner.info.kind != "generate":
        return runner.info
    spare = cast(ModelRunner, runner).memory.spare_bytes
    return replace(
        runner.info,
        kept_bytes=min(config.scheduler.prefix_cache_bytes, spare),
        restored_states=restored.states,
        refused_states=restored.refused,
    )


def _loop(pipe: EnginePipe, runner: ModelRunner | EmbedRunner, config: EngineConfig) -> Loop:
    """What the model is decides."""
    if runner.info.kind == "generate":
        return Worker(pipe, cast(ModelRunner, runner), config)
    return EmbedLoop(pipe, cast(EmbedRunner, runner), config.scheduler)


def _die_with_parent() -> None:
    """The kernel kills this process when the API process dies; until then that one decides.

    Terminals and systemd signal the whole group, which must not cut off answers that may finish.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_before_parent() -> None:
    """When memory is out the kernel should end an engine, which is started again. To be called
    before `leave_no_dump`, which gives the files below /proc/self to root."""
    with contextlib.suppress(OSError, ValueError):
        _OOM_SCORE.write_text(str(min(1000, int(_OOM_SCORE.read_text()) + _WORSE)))


if __name__ == "__main__":
    main()
