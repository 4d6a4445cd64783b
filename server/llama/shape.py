"""How many slots of how many tokens a model gets, chosen from the memory there is."""

from __future__ import annotations

from msgspec import Struct

from server.core.config import KvType
from server.core.errors import ConfigError, OutOfMemory

CELL_BLOCK = 256
"""llama.cpp pads a stream's cells to a multiple of this."""
COMPUTE_RESERVE = 512 << 20
"""Bytes kept free for compute buffers and the Python process."""

ELEMENT_BYTES: dict[KvType, float] = {"f16": 2, "q8_0": 34 / 32}
"""Of a number of K or V."""

_CONTEXTS = (8192, 4096, 2048, 1024, 512)
_SLOTS = (8, 4, 2, 1)
_SHARE = 0.5


class Shape(Struct, frozen=True):
    slots: int
    context: int

    @property
    def cells(self) -> int:
        """Tokens of KV memory allocated a slot."""
        return -(-self.context // CELL_BLOCK) * CELL_BLOCK


class StateSize(Struct, frozen=True):
    """Bytes of a sequence's memory: `fixed`, and `per_token` for each token it holds."""

    fixed: int
    per_token: int

    def of(self, shape: Shape) -> int:
        """All slots, used or not."""
        return shape.slots * (self.fixed + shape.cells * self.per_token)


def choose_shape(
    *,
    context_train: int,
    state: StateSize,
    free_bytes: int,
    context: int | None = None,
    slots: int | None = None,
) -> Shape:
    """The roomiest shape whose KV takes at most half of `free_bytes` (all of it when fixed).

    What the caller fixes is kept or refused, never changed silently: a context beyond the
    model's is ConfigError, one that cannot fit is OutOfMemory.
    """
    if context is not None and context > context_train:
        raise ConfigError(
            f"--ctx {context} is more than the {context_train} tokens this model was trained for;"
            f" pass --ctx {context_train} or less"
        )
    usable = max(0, free_bytes - COMPUTE_RESERVE)
    fixed = context is not None and slots is not None
    budget = usable if fixed else int(usable * _SHARE)
    for shape in _candidates(context_train, context, slots):
        if state.of(shape) <= budget:
            return shape
    smallest = _candidates(context_train, context, slots)[-1]
    need = state.of(smallest)
    raise OutOfMemory(
        f"too little memory: {smallest.slots} slots × {smallest.context} tokens need"
        f" {need / 1e9:.2f} GB for the KV cache, {usable / 1e9:.2f} GB can be used;"
        " pass a smaller --ctx or fewer --slots, or pick a smaller model"
    )


def _candidates(context_train: int, context: int | None, slots: int | None) -> list[Shape]:
    contexts = [context] if context else sorted({min(c, context_train) for c in _CONTEXTS})[::-1]
    counts = [slots] if slots else list(_SLOTS)
    shapes = [Shape(slots=s, context=c) for c in contexts for s in counts]
    return sorted(shapes, key=lambda s: (min(s.context, 4096), s.slots, s.context), reverse=True)
