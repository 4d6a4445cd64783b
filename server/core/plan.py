"""What the scheduler asks of a runner in one step, and what comes back."""

from __future__ import annotations

from msgspec import Struct


class MemoryTraits(Struct, frozen=True):
    """What a model's memory allows. Never guessed: the runner reports it.

    `trim`: a sequence may be cut at any position. `copy`: a stream may be copied to another slot.
    `streams`: sequences in neighbouring slots share a pass; a gap between slots splits it.
    """

    trim: bool = True
    copy: bool = True
    streams: bool = True


class Copy(Struct, frozen=True, tag="copy"):
    """Replace all of `target` by `source`'s first `length` tokens."""

    source: int
    target: int
    length: int


class Trim(Struct, frozen=True, tag="trim"):
    """Forget all tokens of `slot` from position `length` on."""

    slot: int
    length: int


MemoryOp = Copy | Trim


class Row(Struct, frozen=True):
    """`tokens` to compute in `slot` from `position` on; `sample` asks for the next token after them.

    A `filler` row only keeps neighbouring slots in one pass: its tokens are forgotten after the step.
    """

    slot: int
    position: int
    tokens: list[int]
    sample: bool = False
    filler: bool = False


class BatchPlan(Struct, frozen=True):
    """One step: memory operations first, in order, then all rows in one batch, ascending by slot."""

    memory: tuple[MemoryOp, ...]
    rows: tuple[Row, ...]
    decode_tokens: int = 0
    prefill_tokens: int = 0
    context_tokens: int = 0


class StepResult(Struct, frozen=True):
    """`sampled`: slot to the tokens sampled in it. `failed`: slot to why its row was lost."""

    sampled: dict[int, int]
    seconds: float
    failed: dict[int, str] = {}


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
    reused_slot: int
    reused_copy: int
    reused_merge: int
    resident_bytes: int
