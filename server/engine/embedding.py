"""The loop of an engine that makes vectors: receive → take turns → run → send."""

from __future__ import annotations

import queue
import threading
import time

import numpy as np

from server.core.config import SchedulerConfig
from server.core.errors import IngleError
from server.core.plan import EmbedResult
from server.core.protocol import EmbedRunner
from server.core.stats import Reuse, StepStats
from server.core.types import Admitted, Embedded, EngineEvent, Failed, Finished, Started, Usage

from .cost import FIRST_PATIENCE, PATIENCE
from .frames import Cancel, Command, Detokenize, Embed, EnginePipe, StepFrame, Tokenize
from .reading import ResidentMemory, read_commands, refusal
from .text_intake import TextIntake
from .tokens import answer
from .turns import Job, Turns

FEWEST_TOKENS = 64
_LEARN = 0.3


class EmbedLoop:
    """Runs over one loaded runner until the pipe closes."""

    def __init__(self, pipe: EnginePipe, runner: EmbedRunner, config: SchedulerConfig) -> None:
        self._pipe = pipe
        self._runner = runner
        self._intake = TextIntake(runner, self._answer)
        self._pace = Pace(config)
        self._patience = config.watchdog_seconds
        self._turns = Turns()
        self._open: dict[str, Job] = {}
        self._inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._resident = ResidentMemory()

    def start(self) -> None:
        threading.Thread(target=self._read, name="reader", daemon=True).start()

    def _read(self) -> None:
        threading.Thread(target=self._intake.loop, name="intake", daemon=True).start()
        read_commands(self._pipe, self._take)

    def loop(self) -> None:
        while True:
            if not self._turns:
                self._turns.add(self._inbox.get())
            while not self._inbox.empty():
                self._turns.add(self._inbox.get())
            self._step()

    def _take(self, command: Command) -> None:
        if isinstance(command, Cancel):
            job = self._open.pop(command.id, None)
            if job is not None:
                job.cancelled = True
        elif isinstance(command, Embed):
            job = Job(command.request, time.monotonic())
            self._open[job.id] = job
            self._intake.put(job)
        elif isinstance(command, Tokenize | Detokenize):
            self._pipe.send(StepFrame((answer(self._runner, command),)))
        else:
            self._pipe.send(refusal(command, self._runner.info))

    def _answer(self, job: Job, error: IngleError | None) -> None:
        """From the intake: the job is complete, or refused."""
        if error is not None:
            self._open.pop(job.id, None)
            self._pipe.send(StepFrame((Failed.of(job.id, error),)))
            return
        self._pipe.send(StepFrame((Admitted(job.id, job.tokens),)))
        self._inbox.put(job)

    def _step(self) -> None:
        started = time.monotonic()
        batch = self._turns.take(self._pace.tokens, self._runner.info.slots)
        inputs = _inputs(batch)
        longest = self._pace.longest(sum(map(len, inputs)))
        if longest > self._patience:
            self._pipe.send(StepFrame((), patience=longest))
        result = self._runner.run(inputs) if batch else EmbedResult({}, 0.0)
        computed = sum(map(len, inputs))
        self._pace.learn(computed, result.seconds)
        events = self._events(batch, result, started)
        stats = self._stats(len(batch), computed, result.seconds, started)
        self._pipe.send(StepFrame(tuple(events), (stats,)))

    def _events(self, batch: list[Job], result: EmbedResult, started: float) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        for job, indices in _by_job(batch).items():
            if job.started is None:
                job.started = started
                events.append(Started(job.id))
            failures = [result.failed[index] for index in indices if index in result.failed]
            if failures:
                job.cancelled = True
                events.append(Failed(job.id, "EngineError", failures[0]))
                self._open.pop(job.id, None)
                continue
            rows = b"".join(result.vectors[index] for index in indices)
            events.append(Embedded(job.id, len(indices), self._finished(job, rows, len(indices))))
            if job.exhausted:
                usage = Usage(job.tokens, 0, 0)
                events.append(Finished(job.id, "stop", usage, job.started - job.arrived))
                self._open.pop(job.id, None)
        return events

    def _finished(self, job: Job, rows: bytes, count: int) -> bytes:
        """Scores as they are; vectors cut where asked, and of length 1."""
        if self._runner.info.kind == "rerank":
            return rows
        vectors = np.frombuffer(rows, np.dtype("<f4")).reshape(count, -1)
        vectors = vectors[:, : job.request.dimensions]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        normalised: bytes = (vectors / np.maximum(lengths, np.float32(1e-12))).tobytes()
        return normalised

    def _stats(self, inputs: int, tokens: int, seconds: float, started: float) -> StepStats:
        jobs = list(self._turns)
        running = sum(job.started is not None for job in jobs)
        return StepStats(
            step_seconds=time.monotonic() - started,
            run_seconds=seconds,
            decode_tokens=0,
            prefill_tokens=tokens,
            batch_size=inputs,
            running=running,
            waiting=len(jobs) - running,
            slots_busy=min(sum(len(job.inputs) - job.taken for job in jobs), self._slots),
            slots_total=self._slots,
            kv_used=0,
            kv_total=0,
            snapshot_bytes=0,
            drafted=0,
            accepted=0,
            reused=Reuse(),
            resident_bytes=self._resident.bytes(started),
        )

    @property
    def _slots(self) -> int:
        return self._runner.info.slots


class Pace:
    """How many tokens a batch may hold, so that it takes about `target_step_ms`."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._seconds = config.target_step_ms / 1000
        self._most = config.max_step_tokens
        self.tokens = self._most
        self._known = False

    def longest(self, tokens: int) -> float:
        """Seconds after which a batch must be taken to hang."""
        margin = PATIENCE if self._known else FIRST_PATIENCE
        return margin * tokens * self._seconds / self.tokens

    def learn(self, tokens: int, seconds: float) -> None:
        if seconds <= 0 or not tokens:
            return
        fits = tokens / seconds * self._seconds
        learnt = self.tokens + _LEARN * (fits - self.tokens)
        self.tokens = int(min(self._most, max(FEWEST_TOKENS, learnt)))
        self._known = True


def _inputs(batch: list[Job]) -> list[list[int]]:
    """The token ids of each place in the batch."""
    first = {job: job.taken - len(places) for job, places in _by_job(batch).items()}
    inputs = []
    for job in batch:
        inputs.append(job.inputs[first[job]].tolist())
        first[job] += 1
    return inputs


def _by_job(batch: list[Job]) -> dict[Job, list[int]]:
    """The places of each job in the batch."""
    places: dict[Job, list[int]] = {}
    for place, job in enumerate(batch):
        places.setdefault(job, []).append(place)
    return places
