"""Which slot a waiting sequence gets, and which tokens it need not compute. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from msgspec import Struct

from server.core.plan import Copy, MemoryOp, MemoryTraits, Restore, Trim

from .sequence import Sequence
from .slots import Slot, common_prefix
from .snapshots import Snapshot, SnapshotStore

MOVE_COST = 4
MOVED_PER_TOKEN = 256
"""Moving a state to another slot takes about as long as computing `MOVE_COST` tokens, and one more
for so many that the state holds."""
SPREAD_COST = 64
"""Tokens. A step computes neighbouring slots together; each hole between them costs another pass,
for as long as the sequence runs."""
WORTH_WAITING = 32
"""Tokens a waiting sequence must save to be held back for another one's prefill."""
WORTH_SAVING = 64
"""Tokens a slot must lose before its state is kept in host memory."""
LOSS_WEIGHT = 0.5
KEPT_WEIGHT = 0.05
LOSS_HALVES_AFTER = 60.0
"""Seconds. What a slot loses counts half a token each (little where host memory keeps it), and half
of that after a minute unused."""


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

    @property
    def move_work(self) -> float:
        """As many tokens as could be computed while the state is copied into the slot."""
        return len(self.source.tokens) / MOVED_PER_TOKEN if self.source is not None else 0.0

    @property
    def move_cost(self) -> float:
        """What a move must save to be worth it, in tokens."""
        return MOVE_COST + self.move_work if self.source is not None else 0.0


class Hold(Struct, frozen=True):
    """Wait until `donor` has computed so many tokens of a prefix, or ended."""

    donor: Sequence
    until: int

    @property
    def over(self) -> bool:
        return self.donor.slot is None or self.donor.computed >= self.until


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
            key=lambda way: (self._cost(way, sequence, now), way.slot.used_at),
            default=None,
        )

    def hold(self, sequence: Sequence) -> Hold | None:
        """Where a running sequence is about to compute a prefix this one could copy instead."""
        if not (self._traits.copy and self._traits.trim) or sequence.request.prompt_logprobs:
            return None
        running = [slot.sequence for slot in self._slots if slot.sequence is not None]
        coming, donor = max(
            ((_coming(other, sequence), other) for other in running),
            key=lambda found: found[0],
            default=(0, None),
        )
        if donor is None or coming < WORTH_WAITING:
            return None
        now = max(self._shared(slot, sequence) for slot in self._slots)
        if coming < max(now, self._stored(sequence)[1]) + WORTH_WAITING:
            return None
        return Hold(donor, until=coming - WORTH_WAITING + 1)

    def _ways(self, sequence: Sequence) -> Iterator[Placement]:
        free = [slot for slot in self._slots if slot.sequence is None]
        if not free:
            return
        shared = {slot.index: self._shared(slot, sequence) for slot in self._slots}
        best = max(self._slots, key=lambda slot: (shared[slot.index], -len(slot.tokens)))
        snapshot, stored = self._stored(sequence)
        for slot in free:
            ways = [Placement(slot, shared[slot.index])]
            if self._traits.copy and slot is not best:
                ways.append(Placement(slot, shared[best.index], best))
            if snapshot is not None:
                ways.append(Placement(slot, stored, snapshot))
            yield from (way for way in ways if way.source is None or way.reused > way.move_cost)

    def _cost(self, way: Placement, sequence: Sequence, now: float) -> float:
        weight = KEPT_WEIGHT if self._store.keeps else LOSS_WEIGHT
        weight /= 1 + (now - way.slot.used_at) / LOSS_HALVES_AFTER
        compute = len(sequence.tokens) - way.reused
        return compute + weight * way.lost + way.move_cost + SPREAD_COST * self._holes(way.slot)

    def _holes(self, slot: Slot) -> int:
        """Between the slots that would be running with this one."""
        running = [s.index for s in self._slots if s.sequence is not None or s is slot]
        return sum(after - before > 1 for before, after in pairwise(running))

    def _shared(self, slot: Slot, sequence: Sequence) -> int:
        shared = slot.shared(sequence.tokens, sequence.scope)
        return self._usable(shared, len(slot.tokens), sequence)

    def _stored(self, sequence: Sequence) -> tuple[Snapshot | None, int]:
        snapshot, shared = self._store.find(sequence.tokens[:-1], sequence.scope)
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


def _coming(running: Sequence, waiting: Sequence) -> int:
    """Tokens of `waiting` that `running` will have computed at the end of its prompt."""
    if running.scope != waiting.scope or running.remaining <= 1:
        return 0
    return min(common_prefix(running.tokens, waiting.tokens), len(waiting.tokens) - 1)
