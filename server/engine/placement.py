"""Which slot a waiting sequence gets, and which tokens it need not compute. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from server.core.plan import Copy, MemoryOp, MemoryTraits, Restore, Trim

from .sequence import Sequence
from .slots import Slot, common_prefix
from .snapshots import Snapshot, SnapshotStore

COPY_COST = 32
"""Tokens. Moving a state to another slot takes about as long as computing this many."""
WORTH_WAITING = 32
"""Tokens a waiting sequence must save to be held back for another one's prefill."""
WORTH_SAVING = 64
"""Tokens a slot must lose before its state is kept in host memory."""
LOSS_WEIGHT = 0.5
LOSS_HALVES_AFTER = 60.0
"""Seconds. What a slot loses counts half a token each, and half of that after a minute unused."""


class Placement(Struct, frozen=True):
    """`reused` leading tokens come with the slot, from another slot, or from a snapshot."""

    slot: Slot
    reused: int
    source: Slot | Snapshot | None = None

    def memory(self) -> list[MemoryOp]:
        """The operations that leave exactly `reused` tokens in the slot."""
        if isinstance(self.source, Slot):
            return [Copy(self.source.index, self.slot.index, self.reused)]
        if self.source is not None:
            return [Restore(self.slot.index, self.source.key, self.reused)]
        if self.reused < len(self.slot.tokens):
            return [Trim(self.slot.index, self.reused)]
        return []

    @property
    def lost(self) -> int:
        """Tokens the slot holds now and will not hold any more."""
        return len(self.slot.tokens) - (0 if self.source is not None else self.reused)


class Placer:
    """Finds the cheapest way for a sequence, by tokens to compute plus tokens lost to others."""

    def __init__(self, slots: list[Slot], traits: MemoryTraits, store: SnapshotStore) -> None:
        self._slots = slots
        self._traits = traits
        self._store = store

    def place(self, sequence: Sequence, now: float) -> Placement | None:
        """Where `sequence` goes, or None when no slot is free.

        At least one token is left to compute: its logits choose the first new one.
        """
        ways = list(self._ways(sequence))
        return min(
            ways,
            key=lambda way: (_cost(way, sequence, now), way.slot.used_at),
            default=None,
        )

    def worth_waiting(self, sequence: Sequence) -> bool:
        """Whether a running sequence is about to compute a prefix this one could copy instead."""
        if not (self._traits.copy and self._traits.trim) or sequence.request.prompt_logprobs:
            return False
        coming = max((_coming(slot.sequence, sequence) for slot in self._slots), default=0)
        if coming < WORTH_WAITING:
            return False
        now = max(self._shared(slot, sequence) for slot in self._slots)
        return coming >= max(now, self._stored(sequence)[1]) + WORTH_WAITING

    def _ways(self, sequence: Sequence) -> Iterator[Placement]:
        free = [slot for slot in self._slots if slot.sequence is None]
        if not free:
            return
        shared = {slot.index: self._shared(slot, sequence) for slot in self._slots}
        best = max(self._slots, key=lambda slot: shared[slot.index])
        snapshot, stored = self._stored(sequence)
        for slot in free:
            yield Placement(slot, shared[slot.index])
            if self._traits.copy and slot is not best and shared[best.index] > COPY_COST:
                yield Placement(slot, shared[best.index], best)
            if snapshot is not None and stored > COPY_COST:
                yield Placement(slot, stored, snapshot)

    def _shared(self, slot: Slot, sequence: Sequence) -> int:
        shared = slot.shared(sequence.tokens, sequence.scope)
        return self._usable(shared, len(slot.tokens), sequence)

    def _stored(self, sequence: Sequence) -> tuple[Snapshot | None, int]:
        snapshot, shared = self._store.find(sequence.tokens, sequence.scope)
        if snapshot is None:
            return None, 0
        return snapshot, self._usable(shared, len(snapshot.tokens), sequence)

    def _usable(self, shared: int, held: int, sequence: Sequence) -> int:
        """Of `held` tokens `shared` fit the sequence; a state that cannot be cut is all or none.

        A prompt to be scored is computed whole.
        """
        if sequence.request.prompt_logprobs:
            return 0
        usable = min(shared, len(sequence.tokens) - 1)
        return usable if self._traits.trim or usable == held else 0


def _cost(way: Placement, sequence: Sequence, now: float) -> float:
    weight = LOSS_WEIGHT / (1 + (now - way.slot.used_at) / LOSS_HALVES_AFTER)
    compute = len(sequence.tokens) - way.reused
    return compute + weight * way.lost + COPY_COST * (way.source is not None)


def _coming(running: Sequence | None, waiting: Sequence) -> int:
    """Tokens of `waiting` that `running` will have computed at the end of its prompt."""
    if running is None or running.scope != waiting.scope or running.remaining <= 1:
        return 0
    return min(common_prefix(running.tokens, waiting.tokens), len(waiting.tokens) - 1)
