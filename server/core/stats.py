"""Numbers as plain data, and where they go. The API process exports them, in one place."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

from .types import ModelInfo

Outcome = Literal["stop", "length", "cancelled", "error"]


class Reuse(Struct, array_like=True):
    """Prompt tokens not computed again, by where they were found."""

    slot: int = 0
    copy: int = 0
    merge: int = 0
    snapshot: int = 0


class StepStats(Struct, frozen=True, array_like=True):
    """One step in numbers. Counters are of this step; gauges are after it. Times in seconds."""

    step_seconds: float
    run_seconds: float
    decode_tokens: int
    prefill_tokens: int
    batch_size: int
    running: int
    waiting: int
    slots_busy: int
    slots_total: int
    kv_used: int
    kv_total: int
    snapshot_bytes: int
    drafted: int
    accepted: int
    reused: Reuse
    resident_bytes: int


class RequestRecord(Struct, frozen=True):
    """One HTTP request's generation, at its end; `n` choices share one record. Times in seconds."""

    model: str
    outcome: Outcome
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    queue_seconds: float | None
    first_token_seconds: float | None
    total_seconds: float


ResidentState = Literal["unloaded", "loading", "loaded", "unloading", "failed"]


class ReplicaStatus(Struct, frozen=True):
    """One engine process. `requests` were handed to it and have not ended."""

    ready: bool
    pid: int | None
    requests: int
    restarts: int


class ModelStatus(Struct, frozen=True):
    """Where a model stands. `bytes` of memory are estimated until they are `measured`.

    `requests` use it, `waiting` ones wait for it to be loaded. Times in seconds; `unloads_in` is
    None while it is used, and where it stays as long as memory allows.
    """

    name: str
    state: ResidentState
    bytes: int
    measured: bool
    pinned: bool
    requests: int
    waiting: int
    keep: float | None
    idle: float | None = None
    unloads_in: float | None = None
    load_seconds: float | None = None
    error: str | None = None
    replicas: tuple[ReplicaStatus, ...] = ()


Refusal = Literal["requests", "tokens", "key_requests", "key_tokens", "queue_seconds"]
"""What there was too much of when a request was not let in."""


class AdmissionSink(Protocol):
    def on_refused(self, why: Refusal) -> None: ...

    def on_waiting_tokens(self, tokens: int) -> None:
        """Of all prompts that are not read yet."""
        ...


class StatsSink(Protocol):
    def on_load(self, model: str, info: ModelInfo) -> None: ...

    def on_load_failed(self, model: str) -> None: ...

    def on_unload(self, model: str) -> None: ...

    def on_step(self, model: str, stats: StepStats) -> None: ...

    def on_restart(self, model: str, reason: str) -> None:
        """`reason`: a signal's name, "SIGKILL (oom?)", "hang" or "exit code N"."""
        ...

    def on_gap(self, model: str, seconds: float, tokens: int) -> None:
        """`tokens` arrived together, `seconds` after the ones before them in the same choice."""
        ...

    def on_request(self, record: RequestRecord) -> None: ...
