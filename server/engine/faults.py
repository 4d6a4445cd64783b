"""Faults on purpose, for tests of what others notice of them: crashes, hangs, wrong numbers.

The variable INGLE_FAULTS names them, `;` between two; the setting `fault_injection` lets it:

    KIND[=VALUE]@CONDITION,…     abort@step=20     sleep=4000@step=3..5     abort@word=x,start=1..

| kind | what happens |
|---|---|
| abort, segv, terminate | the process dies: `abort()`, a null read, a C++ exception that leaves C |
| spin | the step never ends |
| sleep=MS | the step takes so much longer |
| nan | the step's logits are no numbers: of the rows with the word, or of all |
| decode=STATUS | `llama_decode` does nothing and says 1, 2, -1 or -3, if the word is in its batch |
| load_fail | the model cannot be loaded |

`step=N`, `step=N..M` or `step=N..`: of the steps of a process that compute something, from 1.
`word=W`: while a request whose prompt holds it is in the batch. `start=N…`: in the Nth process of
an engine, and only in the first where nothing is said, so that a fault comes once.
"""

from __future__ import annotations

import ctypes
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from msgspec.structs import replace

from server.core.config import EngineConfig, RunnerConfig
from server.core.errors import ConfigError, ModelFileError
from server.core.plan import BatchPlan
from server.core.types import GenerateRequest

log = logging.getLogger("ingle.engine")

_BREAKABLE = {"server.llama.runner:LlamaRunner": "server.llama.breakable:BreakableRunner"}
_STATUSES = ("1", "2", "-1", "-3")
_KINDS = ("abort", "segv", "terminate", "spin", "sleep", "nan", "decode", "load_fail")
_FAULT = re.compile(r"(?P<kind>[a-z_]+)(=(?P<value>-?\d{1,6}))?(@(?P<conditions>.+))?")
_SPAN = re.compile(r"(?P<first>\d{1,9})(?P<dots>\.\.(?P<last>\d{1,9})?)?")
_WORD = re.compile(r"[^\s;,@=]+")


@dataclass(frozen=True)
class Span:
    first: int = 1
    last: int | None = None

    def __contains__(self, number: int) -> bool:
        return self.first <= number and (self.last is None or number <= self.last)


@dataclass(frozen=True)
class Fault:
    kind: str
    value: int = 0
    step: Span = Span()
    word: str = ""
    start: Span = Span(1, 1)


@runtime_checkable
class Breakable(Protocol):
    """A runner on native code, which can be made to fail as that does."""

    def abort(self) -> None: ...

    def terminate(self) -> None: ...

    def spoil(self, *, not_finite: frozenset[int], statuses: Mapping[int, int]) -> None:
        """In the next step: the slots whose logits are none, and what a batch with one gives."""
        ...


def arm(
    configs: Mapping[str, EngineConfig], wanted: str, *, allowed: bool
) -> Mapping[str, EngineConfig]:
    """The engines with the faults that are wanted. Raises ConfigError."""
    if not wanted:
        return configs
    if not allowed:
        log.warning("INGLE_FAULTS does nothing: the setting fault_injection is off")
        return configs
    parse(wanted)
    log.warning("fault injection is on: engines will fail on purpose")
    return {
        name: replace(config, faults=wanted, runner=_BREAKABLE.get(config.runner, config.runner))
        for name, config in configs.items()
    }


def parse(text: str) -> list[Fault]:
    """Raises ConfigError."""
    return [_fault(part.strip()) for part in text.split(";") if part.strip()]


def _fault(text: str) -> Fault:
    found = _FAULT.fullmatch(text)
    if found is None or found["kind"] not in _KINDS:
        raise _invalid(text, f"a fault is one of {', '.join(_KINDS)}, then @ and conditions")
    kind, value = found["kind"], found["value"]
    if (value is not None) != (kind in ("sleep", "decode")):
        raise _invalid(text, "sleep and decode have a number, others none")
    if kind == "decode" and value not in _STATUSES:
        raise _invalid(text, f"decode is one of {', '.join(_STATUSES)}")
    if kind == "sleep" and int(value) < 0:
        raise _invalid(text, "sleep is in milliseconds")
    given = _conditions(text, found["conditions"] or "")
    if kind == "load_fail" and given.keys() - {"start"}:
        raise _invalid(text, "load_fail knows start alone")
    if kind != "load_fail" and not given.keys() & {"step", "word"}:
        raise _invalid(text, "it lacks @step=N or @word=W")
    return Fault(kind, int(value or 0), **given)


def _conditions(text: str, conditions: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, _, value in (part.strip().partition("=") for part in conditions.split(",") if part):
        if name in given:
            raise _invalid(text, f"{name} is there twice")
        if name in ("step", "start") and (span := _SPAN.fullmatch(value)):
            given[name] = _span(text, span)
        elif name == "word" and _WORD.fullmatch(value):
            given[name] = value
        else:
            raise _invalid(text, "conditions are step=N, step=N..M, step=N.., start=…, word=W")
    return given


def _span(text: str, found: re.Match[str]) -> Span:
    first = int(found["first"])
    last = int(found["last"]) if found["last"] else None if found["dots"] else first
    if not first or (last is not None and last < first):
        raise _invalid(text, "numbers go from 1 up")
    return Span(first, last)


def _invalid(text: str, reason: str) -> ConfigError:
    return ConfigError(f"INGLE_FAULTS: {text!r} is no fault: {reason}")


class FaultyRunner:
    """A runner that is what it wraps until a fault is due. `start` counts an engine's processes."""

    def __init__(self, runner: Any, faults: str, start: int) -> None:
        self._runner = runner
        self._faults = [fault for fault in parse(faults) if start in fault.start]
        self._prompts: dict[int, str] = {}
        self._steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def load(self, config: RunnerConfig) -> None:
        kinds = {fault.kind for fault in self._faults}
        native = kinds & {"terminate", "nan", "decode"}
        if native and not isinstance(self._runner, Breakable):
            raise ConfigError(f"INGLE_FAULTS: {min(native)} needs a model that computes")
        if "load_fail" in kinds:
            raise ModelFileError("INGLE_FAULTS: load_fail")
        self._runner.load(config)

    def open(self, slot: int, request: GenerateRequest, *more: Any) -> None:
        self._prompts[slot] = "".join(piece.text for piece in request.prompt)
        self._runner.open(slot, request, *more)

    def close(self, slot: int) -> None:
        self._prompts.pop(slot, None)
        self._runner.close(slot)

    def run(self, work: Any) -> Any:
        """`work` is a BatchPlan or, of an embedder, a batch."""
        rows = work.rows if isinstance(work, BatchPlan) else work
        if rows:
            self._steps += 1
            slots = [row.slot for row in rows] if isinstance(work, BatchPlan) else []
            self._fail(slots)
        return self._runner.run(work)

    def _fail(self, slots: list[int]) -> None:
        not_finite: set[int] = set()
        statuses: dict[int, int] = {}
        for fault in self._faults:
            hit = [slot for slot in slots if fault.word in self._prompts.get(slot, "")]
            if self._steps not in fault.step or (fault.word and not hit):
                continue
            if fault.kind == "nan":
                not_finite.update(hit)
            elif fault.kind == "decode":
                statuses |= dict.fromkeys(hit, fault.value)
            else:
                self._happen(fault)
        if isinstance(self._runner, Breakable):
            self._runner.spoil(not_finite=frozenset(not_finite), statuses=statuses)

    def _happen(self, fault: Fault) -> None:
        match fault.kind:
            case "sleep":
                time.sleep(fault.value / 1000)
            case "spin":
                while True:
                    pass
            case "segv":
                ctypes.string_at(0)
            case "abort" if not isinstance(self._runner, Breakable):
                ctypes.CDLL(None).abort()
            case "abort":
                self._runner.abort()
            case "terminate":
                self._runner.terminate()
