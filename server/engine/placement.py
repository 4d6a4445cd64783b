"""Which slot a waiting sequence gets, and which tokens it need not compute. Pure bookkeeping."""

from __future__ import annotations

from msgspec import Struct

from server.core.plan import Copy, MemoryOp, MemoryTraits, Trim

from .sequence import Sequence
from .slots import Slot, common_prefix

COPY_COST = 32
"""Tokens. A copy moves a whole stream, which takes about as long as computing this many."""
WORTH_WAITING = 32
"""Tokens a waiting sequence must save to be held back for another one's prefill."""
LOSS_WEIGHT = 0.5
LOSS_HALVES_AFTER = 60.0
"""Seconds. What a slot loses counts half a token each, and half of that after a minute unused."""


class Placement(Struct, frozen=True):
    slot: Slot
    reused: int
    source: Slot | None = None

    def memory(self) -> list[MemoryOp]:
        """The operations that leave exactly `reused` tokens in the slot."""
        if self.source is not None:
            return [Copy(self.source.index, self.slot.index, self.reused)]
        if self.reused < len(self.slot.tokens):
            return [Trim(self.slot.index, self.reused)]
        return []


def place(
    sequence: Sequence, slots: list[Slot], traits: MemoryTraits, now: float
) -> Placement | None:
    """Where `sequence` goes, or None when no slot is free.

    The cheapest way by tokens to compute plus tokens lost to others: in a free slot as it is, or in
    one that the longest shared prefix is copied to. At least one token is left to compute: its
    logits choose the first new one.
    """
    free = [slot for slot in slots if slot.sequence is None]
    if not free:
        return None
    shared = {slot.index: _usable(slot, sequence, traits) for slot in slots}
    ways = [Placement(slot, shared[slot.index]) for slot in free]
    best = max(slots, key=lambda slot: shared[slot.index])
    if traits.copy and shared[best.index] > COPY_COST:
        ways += [Placement(slot, shared[best.index], best) for slot in free if slot is not best]
    return min(ways, key=lambda way: (_cost(way, sequence, now), way.slot.used_at))


def _cost(way: Placement, sequence: Sequence, now: float) -> float:
    kept = 0 if way.source is not None else way.reused
    weight = LOSS_WEIGHT / (1 + (now - way.slot.used_at) / LOSS_HALVES_AFTER)
    compute = len(sequence.tokens) - way.reused
    return compute + weight * (len(way.slot.tokens) - kept) + COPY_COST * (way.source is not None)


def _usable(slot: Slot, sequence: Sequence, traits: MemoryTraits) -> int:
    shared = min(slot.shared(sequence.tokens, sequence.scope), len(sequence.tokens) - 1)
    if traits.trim or shared == len(slot.tokens):
        return shared
    return 0


def worth_waiting_for(sequence: Sequence, slots: list[Slot], traits: MemoryTraits) -> bool:
    """Whether a running sequence is about to compute a prefix this one could copy instead."""
    if not (traits.copy and traits.trim):
        return False
    now = max((_usable(slot, sequence, traits) for slot in slots), default=0)
    return any(_coming(slot.sequence, sequence) >= now + WORTH_WAITING for slot in slots)


def _coming(running: Sequence | None, waiting: Sequence) -> int:
    """Tokens of `waiting` that `running` will have computed at the end of its prompt."""
    if running is None or running.scope != waiting.scope or running.remaining <= 1:
        return 0
    return min(common_prefix(running.tokens, waiting.tokens), len(waiting.tokens) - 1)
