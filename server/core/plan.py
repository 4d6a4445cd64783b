"""What the scheduler asks of a runner in one step, and what comes back."""

from __future__ import annotations

from msgspec import Struct


class MemoryTraits(Struct, frozen=True):
    """What a model's memory allows. Never guessed: the runner reports it.

    `trim`: a sequence may be cut at any position. `copy`: a slot may be copied to another one.
    """

    trim: bool = True
    copy: bool = True


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
    """`tokens` to compute in `slot` from `position` on; `sample` asks for the token after them."""

    slot: int
    position: int
    tokens: list[int]
    sample: bool = False


class BatchPlan(Struct, frozen=True):
    """One step: memory operations first, in order, then all rows in one batch, ascending by slot.

    `attended` is the work of attention: for each token computed, the tokens it looks back on.
    """

    memory: tuple[MemoryOp, ...]
    rows: tuple[Row, ...]
    decode_tokens: int = 0
    prefill_tokens: int = 0
    attended: int = 0


class StepResult(Struct, frozen=True):
    """`sampled`: slot to the tokens sampled in it. `failed`: slot to why its row was lost."""

    sampled: dict[int, int]
    seconds: float
    failed: dict[int, str] = {}
