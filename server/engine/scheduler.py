"""Decides what each step computes. Pure: queues and a cost model in, a BatchPlan out."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from server.core.config import SchedulerConfig
from server.core.plan import BatchPlan, Forget, MemoryOp, MemoryTraits, Save, StepResult, Trim
from server.core.stats import Reuse

from .batching import Batcher
from .cost import CostModel
from .fairness import FairQueue
from .placement import WORTH_SAVING, Placement, Placer
from .sequence import Sequence
from .slots import Slot
from .snapshots import SnapshotStore


class Scheduler:
    """Owns the slots, the waiting queue and the running sequences.

    A sequence runs while it has a slot. What remains of its known tokens decides how: its prompt is
    prefill, what comes after is decode. While some decode, prefill goes in pieces that keep two
    decode steps within `target_step_ms` of each other, and the two kinds of step take turns.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        traits: MemoryTraits,
        *,
        slots: int,
        context: int,
        cost: CostModel | None = None,
    ) -> None:
        self.slots = [Slot(index) for index in range(slots)]
        self.waiting = FairQueue()
        self.cost = cost or CostModel()
        self.snapshots = SnapshotStore(min(config.prefix_cache_bytes, traits.spare_bytes), traits)
        self.reuse = Reuse()
        self._config = config
        self._batcher = Batcher(config, traits, self.slots, self.cost, context=context)
        self._placer = Placer(self.slots, traits, self.snapshots)
        self._decoded_last = False
        self._moving = 0.0
        """Seconds that moving states takes in the next step."""
        self._memory: list[MemoryOp] = []
        self._reusing: list[tuple[int, str, int]] = []

    @property
    def running(self) -> list[Sequence]:
        return [slot.sequence for slot in self.slots if slot.sequence is not None]

    @property
    def idle(self) -> bool:
        """Whether nothing can be computed until something is told."""
        running = self.running
        free = len(running) < len(self.slots)
        return all(s.resting for s in running) and not (free and len(self.waiting))

    def position(self, coming: int) -> int:
        """In the queue, behind so many more: 1 is the next to get a slot, for 0 there is one.

        For any thread; one that is not the step loop's may hear what was true a moment ago.
        """
        before = len(self.running) + len(self.waiting) + coming
        return max(0, before - len(self.slots) + 1)

    def add(self, sequence: Sequence) -> None:
        self.waiting.add(sequence, self.running)

    def find(self, request_id: str) -> Sequence | None:
        return next((s for s in (*self.waiting, *self.running) if s.id == request_id), None)

    def remove(self, sequence: Sequence, now: float) -> None:
        """End a sequence, whatever its state. Its slot keeps what was computed."""
        if sequence.slot is None:
            self.waiting.remove(sequence)
            return
        slot = self.slots[sequence.slot]
        slot.sequence, slot.used_at = None, now
        sequence.slot = None

    def drop(self, sequence: Sequence, now: float) -> None:
        """End a sequence whose slot cannot be trusted any more."""
        index = sequence.slot
        self.remove(sequence, now)
        if index is not None:
            self.slots[index].tokens = []
            self._memory.append(Trim(index, 0))

    def schedule(self, now: float) -> tuple[BatchPlan, list[Sequence]]:
        """The next step, and the sequences that get their slot with it. An empty plan is idle."""
        self._moving = 0.0
        started = list(self._place_waiting(now))
        decoding = [s for s in self.running if s.decoding and not s.paused]
        prefilling = [s for s in self.running if not s.decoding]
        if prefilling and (self._decoded_last or not decoding):
            plan = self._batcher.prefill(prefilling, now, decoding, self._moving)
        else:
            plan = self._batcher.decode(decoding)
        self._decoded_last = plan.kind == "decode"
        memory, self._memory = tuple(self._memory), []
        return replace(plan, memory=memory), started

    def update(self, plan: BatchPlan, result: StepResult) -> list[tuple[Sequence, list[int]]]:
        """Book a step that ran. Returns each sequence that got tokens, with them."""
        self._learn(plan, result)
        self._count_reuse(result)
        for key in result.unsaved:
            self.snapshots.discard(key)
        for index in result.lost:
            self._start_over(self.slots[index])
        advanced = []
        for row in plan.rows:
            sequence = self.slots[row.slot].sequence
            if sequence is None or row.slot in result.failed or row.slot in result.lost:
                continue
            sampled = result.sampled.get(row.slot, [])
            kept = row.tokens[: len(sampled)] if row.draft else row.tokens
            self.slots[row.slot].tokens += kept
            sequence.computed += len(kept)
            self.waiting.charge(sequence.scope, generated=len(sampled))
            if sampled:
                sequence.drafter.score(sampled, row.draft)
                advanced.append((sequence, sampled))
        return advanced

    def _place_waiting(self, now: float) -> Iterator[Sequence]:
        """Fill free slots in the queue's order, passing over those held back for a prefix.

        Beside streams no more states are moved in a step than the gap between two tokens holds.
        """
        streams = any(s.decoding and not s.paused for s in self.running)
        while len(self.waiting) and any(slot.sequence is None for slot in self.slots):
            tried = ((s, self._place(s, now)) for s in self.waiting.order(now))
            found = next(((s, way) for s, way in tried if way is not None), None)
            if found is None:
                return
            sequence, placement = found
            self.waiting.remove(sequence)
            self._start(sequence, placement, now)
            yield sequence
            self._moving += self.cost.prefill.predict(placement.move_work, 0)
            if streams and self._moving > self._config.target_step_ms / 1000:
                return

    def _place(self, sequence: Sequence, now: float) -> Placement | None:
        """None while it is held back for the prefix that another one computes."""
        if sequence.hold is None or sequence.hold.over:
            sequence.hold = self._placer.hold(sequence)
        if sequence.hold is not None:
            sequence.held = True
            return None
        return self._placer.place(sequence, now)

    def _start(self, sequence: Sequence, placement: Placement, now: float) -> None:
        slot, reused = placement.slot, placement.reused
        saving, gone = self._save(slot, now) if placement.lost >= WORTH_SAVING else ([], [])
        # What has to go may be what this sequence restores: it goes last.
        self._memory += [*saving, *placement.memory(), *gone]
        slot.tokens = sequence.tokens[:reused]
        slot.scope, slot.sequence, slot.used_at = sequence.scope, sequence, now
        sequence.slot, sequence.started = slot.index, now
        sequence.computed = sequence.cached = reused
        self.waiting.charge(sequence.scope, prompt=len(sequence.tokens) - reused)
        self._reusing.append((slot.index, self._level(sequence, placement, now), reused))

    def _start_over(self, slot: Slot) -> None:
        """A prefix that could not be had is computed instead."""
        slot.tokens = []
        self._memory.append(Trim(slot.index, 0))
        if slot.sequence is not None:
            slot.sequence.computed = slot.sequence.cached = 0

    def _save(self, slot: Slot, now: float) -> tuple[list[MemoryOp], list[MemoryOp]]:
        """Keep what the slot is about to lose, unless it is kept already; and what goes for it."""
        known, shared = self.snapshots.find(slot.tokens, slot.scope)
        if known is not None and len(slot.tokens) - shared < WORTH_SAVING:
            self.snapshots.touch(known, now)
            return [], []
        snapshot, gone = self.snapshots.add(slot.tokens, slot.scope, slot.used_at)
        saving: list[MemoryOp] = [Save(slot.index, snapshot.key)] if snapshot else []
        return saving, [Forget(key) for key in gone]

    def _level(self, sequence: Sequence, placement: Placement, now: float) -> str:
        """Where the reused prefix comes from, by the names of `Reuse`."""
        source = placement.source
        if source is None:
            return "slot"
        if isinstance(source, Slot):
            return "merge" if sequence.held else "copy"
        self.snapshots.touch(source, now)
        return "snapshot"

    def _count_reuse(self, result: StepResult) -> None:
        """Of the placements of this step, those that worked."""
        for index, level, reused in self._reusing:
            if index not in result.lost:
                setattr(self.reuse, level, getattr(self.reuse, level) + reused)
        self._reusing = []

    def _learn(self, plan: BatchPlan, result: StepResult) -> None:
        """From steps that were nothing but what the cost model predicts."""
        if result.failed or result.lost or plan.memory or any(row.score for row in plan.rows):
            return
        cost, rows = self.cost, len(plan.rows)
        if plan.kind == "prefill":
            cost.prefill.observe(plan.prefill_tokens, plan.attended, result.seconds)
        elif any(len(row.tokens) - row.draft > 1 for row in plan.rows):
            return
        elif plan.draft_tokens:
            plain = cost.decode.predict(rows, plan.attended)
            cost.observe_draft(plan.draft_tokens, result.seconds - plain)
        elif rows:
            cost.decode.observe(rows, plan.attended, result.seconds)
