"""The tune itself: formats are written, contenders raced, the best of them named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from msgspec import Struct

from server.catalog import ResolvedModel
from server.core.config import RunnerConfig
from server.core.errors import EngineError
from server.llama.machine import available_memory
from server.llama.probe import (
    Compare,
    Done,
    Encode,
    Format,
    KeepReference,
    MeasureSpeed,
    Quality,
    Speed,
)

from .candidates import Candidate, size_of, variants
from .choice import LEAST_GAIN, Contender, Goal, climb, gains, typical, winner
from .load import OtherLoad
from .prober import Measuring, ProbeFailed
from .report import Race, Report, race_of
from .store import ProfileStore

FACTORS = ("threads", "flash attention", "KV type", "micro-batch")

_PROMPTS = {"flash attention": 1024, "KV type": 1024, "micro-batch": 512}
"""Where a difference shows only at depth, or in large steps. In tokens."""
_BUSY = 0.15
_USUAL_PROMPT = 256
_FIRST_PROMPT = 64
_PHASE_SECONDS = 3.0
_RESERVE_BYTES = 1 << 30


Progress = Callable[[str, int, int], None]
"""Told the stage, the steps done and the steps in all."""


class Plan(Struct, frozen=True):
    """What to measure and how well. `formats` of () leaves the weights alone."""

    goal: Goal
    formats: tuple[Format, ...]
    factors: tuple[str, ...] = FACTORS
    rounds: int = 3
    decode_steps: int = 24
    least_gain: float = LEAST_GAIN
    gpu_layers: int = -1


class Tuner:
    """One run over one model, inside `store.exclusively()`, which removes what it leaves behind."""

    def __init__(
        self,
        model: ResolvedModel,
        store: ProfileStore,
        plan: Plan,
        *,
        prober: Measuring,
        progress: Progress,
    ) -> None:
        self._model = model
        self._store = store
        self._plan = plan
        self._prober = prober
        self._progress = progress
        self._cores = store.machine.cores
        self._reference = store.part("reference")
        self._engine = ""
        self._longest_prompt = _FIRST_PROMPT
        self._races: list[Race] = []

    def run(self) -> Report:
        """Blocks for minutes. Raises EngineError when the file as shipped cannot be measured."""
        load = OtherLoad()
        self._fit_prompt()
        self._keep_reference()
        best = self._race("weights", Contender(Candidate()), self._encoded())
        for factor in self._plan.factors:
            others = [Contender(c) for c in variants(factor, best.candidate, self._cores)]
            if factor == "threads":
                self._judge_threads_fairly(others)
            best = self._race(factor, Contender(best.candidate, quality=best.quality), others)
        shipped, best = self._last_run(best)
        self._prober.close()
        return self._report(shipped, best, load.share())

    def _fit_prompt(self) -> None:
        """A slow model is measured on shorter prompts, and none beyond its context."""
        speed = self._speed_of_base(Candidate(), _FIRST_PROMPT)
        context = self._model.header.context_length or 2048
        room = context - 2 * (self._plan.decode_steps + 1)
        affordable = int(speed.prefill * _PHASE_SECONDS)
        self._longest_prompt = max(_FIRST_PROMPT, min(room, affordable))

    def _keep_reference(self) -> None:
        """What the file as shipped predicts. Without it nothing that changes answers is chosen."""
        try:
            kept = self._prober.ask(KeepReference(self._config(Candidate()), str(self._reference)))
        except ProbeFailed:
            self._reference.unlink(missing_ok=True)
        else:
            assert isinstance(kept, Done)
            self._engine = kept.engine

    def _encoded(self) -> list[Contender]:
        """A contender a format, its file written where there is room for it."""
        contenders = [Contender(Candidate(form)) for form in self._plan.formats]
        for number, (form, contender) in enumerate(
            zip(self._plan.formats, contenders, strict=True)
        ):
            self._progress(f"writing {form}", number, len(contenders))
            contender.problem = self._encode(form)
        return contenders

    def _encode(self, form: Format) -> str | None:
        """Why it was not done, or nothing."""
        need = size_of(form, self._model.header.parameters)
        if need + _RESERVE_BYTES > available_memory():
            return f"skipped: too little memory for {need / 1e9:.2f} GB of weights"
        if need > self._store.free_bytes():
            return f"skipped: too little room on the disk for {need / 1e9:.2f} GB"
        target = str(self._store.part(form))
        try:
            self._prober.ask(Encode(str(self._model.path), target, form, self._cores))
        except ProbeFailed as failed:
            return f"failed: {failed.message}"
        return None

    def _race(
        self,
        factor: str,
        base: Contender,
        others: Sequence[Contender],
        choose: Callable[..., Contender] = winner,
    ) -> Contender:
        if not others:
            return base
        for other in others:
            if other.problem is None and other.candidate.changes_answers:
                other.quality = self._quality(other.candidate)
        self._measure(factor, base, others)
        won = choose(base, others, self._plan.goal, self._plan.least_gain)
        self._races.append(
            race_of(
                factor,
                base,
                others,
                won,
                self._plan.goal,
                cores=self._cores,
                least=self._plan.least_gain,
            )
        )
        return won

    def _judge_threads_fairly(self, others: Sequence[Contender]) -> None:
        """Beside a busy neighbour fewer threads are faster; a profile outlives the neighbour."""
        load = self._prober.other_load()
        for other in others:
            if load >= _BUSY and (other.candidate.tuning.threads or 0) < self._cores:
                other.problem = f"not tried: others use {load:.0%} of the processor"

    def _measure(self, stage: str, base: Contender, others: Sequence[Contender]) -> None:
        """In turn, round by round. Who fails is out; the base may not."""
        prompt, done = _PROMPTS.get(stage, _USUAL_PROMPT), 0
        total = self._plan.rounds * (1 + len(others))
        for _ in range(self._plan.rounds):
            self._progress(stage, done, total)
            base.speeds.append(self._speed_of_base(base.candidate, prompt))
            for number, other in enumerate(others, done + 1):
                self._progress(stage, number, total)
                self._try(other, prompt)
            done += 1 + len(others)
        self._progress(stage, total, total)

    def _try(self, contender: Contender, prompt: int) -> None:
        if contender.problem is None:
            try:
                contender.speeds.append(self._speed(contender.candidate, prompt))
            except ProbeFailed as failed:
                contender.problem = f"failed: {failed.message}"

    def _last_run(self, best: Contender) -> tuple[Contender, Contender]:
        """The winner of all races against the file as shipped, measured afresh.

        Weights that pay must not carry settings along that won a race by luck: with the usual
        settings they run too, and the settings stay only when they win again.
        """
        shipped = Contender(Candidate())
        steps = [Candidate(best.candidate.weights), best.candidate]
        rivals = [Contender(step) for step in dict.fromkeys(steps) if step != shipped.candidate]
        if not rivals:
            self._measure("last run", shipped, [])
            return shipped, shipped
        return shipped, self._race("last run", shipped, rivals, choose=climb)

    def _report(self, shipped: Contender, chosen: Contender, busy: float) -> Report:
        plan, machine = self._plan, self._store.machine
        gain = median(gains(shipped.speeds, chosen.speeds, plan.goal))
        return Report(
            model=self._model.name,
            quantisation=self._model.header.quantisation,
            goal=plan.goal,
            processor=machine.processor,
            cores=machine.cores,
            engine=f"{machine.engine} (llama.cpp {self._engine or 'unknown'})",
            rounds=plan.rounds,
            busy=busy,
            races=tuple(self._races),
            choice=chosen.candidate if chosen is not shipped else None,
            gain=gain,
            quality=chosen.quality,
            before=typical(shipped.speeds),
            after=typical(chosen.speeds),
        )

    def _quality(self, candidate: Candidate) -> Quality | None:
        if not self._reference.exists():
            return None
        request = Compare(self._config(candidate), str(self._reference))
        try:
            quality = self._prober.ask(request)
        except ProbeFailed:
            return None
        assert isinstance(quality, Quality)
        return quality

    def _speed_of_base(self, candidate: Candidate, prompt: int) -> Speed:
        try:
            return self._speed(candidate, prompt)
        except ProbeFailed as failed:
            raise EngineError(f"{self._model.name} cannot be measured: {failed.message}") from None

    def _speed(self, candidate: Candidate, prompt: int) -> Speed:
        request = MeasureSpeed(
            self._config(candidate),
            prompt_tokens=min(prompt, self._longest_prompt),
            decode_steps=self._plan.decode_steps,
            phase_seconds=_PHASE_SECONDS,
        )
        speed = self._prober.ask(request)
        assert isinstance(speed, Speed)
        return speed

    def _config(self, candidate: Candidate) -> RunnerConfig:
        return candidate.config(str(self._path(candidate)), self._plan.gpu_layers)

    def _path(self, candidate: Candidate) -> Path:
        return self._store.part(candidate.weights) if candidate.weights else self._model.path
