"""How much memory a model should take, before it is loaded. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from server.core.types import ModelKind
from server.llama.shape import COMPUTE_RESERVE, Shape, StateSize, choose_shape

DECENT_SLOTS, DECENT_CONTEXT = 4, 4096
"""What a model gets at least where several share the memory, if it can have that at all."""
_SHARE = 0.5
"""Of what it is allotted beyond the least, what it may take for longer inputs or kept states."""


class Needs(Struct, frozen=True):
    """`weights` and `token_bytes` (K and V) in bytes; `context` and `slots` where they are set."""

    weights: int
    token_bytes: int = 0
    context_train: int = DECENT_CONTEXT
    kind: ModelKind = "generate"
    context: int | None = None
    slots: int | None = None
    kept_bytes: int = 0
    replicas: int = 1

    @property
    def decent(self) -> int:
        """Bytes of one replica with room enough to be of use."""
        if self.kind != "generate":
            return self.weights + COMPUTE_RESERVE
        shape = Shape(
            slots=self.slots or DECENT_SLOTS,
            context=self.context or min(DECENT_CONTEXT, self.context_train),
        )
        kv = self._state.of(shape)
        fixed = self.context is not None and self.slots is not None
        return self.weights + COMPUTE_RESERVE + (kv if fixed else int(kv / _SHARE))

    @property
    def _state(self) -> StateSize:
        return StateSize(fixed=0, per_token=self.token_bytes)

    def estimate(self, allotted: int) -> int:
        """Bytes that one replica should take of those. Raises ConfigError, OutOfMemory."""
        least = self.weights + COMPUTE_RESERVE
        if self.kind != "generate":
            return max(least, least + int((allotted - least) * _SHARE))
        shape = choose_shape(
            context_train=self.context_train,
            state=self._state,
            free_bytes=max(0, allotted - self.weights),
            context=self.context,
            slots=self.slots,
        )
        taken = least + self._state.of(shape)
        return taken + max(0, min(self.kept_bytes, int((allotted - taken) * _SHARE)))


def allot(needs: Mapping[str, Needs], budget: int) -> dict[str, int]:
    """Bytes that each replica of each model may take: an equal share, or what it needs if more.

    So models that fit together are all there, and one that is large takes turns with the others.
    """
    share = budget // max(1, len(needs))
    return {
        name: min(budget, max(share, need.decent * need.replicas)) // need.replicas
        for name, need in needs.items()
    }
