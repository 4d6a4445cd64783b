"""Decides what each step computes. Pure: queues and a cost model in, a BatchPlan out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from server.core.config import SchedulerConfig
from server.core.plan import (
    BatchPlan,
    Forget,
    MemoryOp,
    MemoryTraits,
    Row,
    Save,
    StepResult,
    Trim,
)
from server.core.stats import Reuse

from .cost import CostModel, attended
from .drafting import best_length
from .fairness import FairQueue
from .placement import WORTH_SAVING, Placement, Placer
from .sequence import Sequence
from .slots import Slot
from .snapshots import SnapshotStore

SMALLEST_PIECE = 16
"""Tokens. Prompts are not cut finer: below this a prefill step is mostly overhead."""
TILE = 64
STRETCH = 1.3
"""llama.cpp's attention computes a prompt in tiles of so many tokens, and what is shorter a third
slower. Pieces are whole tiles where that keeps the gap within `STRETCH` times the target."""
MOST_FORCED = 16
"""Tokens a decode step computes at most of a sequence that has several to catch up with."""
FEWEST_BRIDGED = 3
LONGEST_BRIDGE = 2
"""Slots between two decoding ones that are computed along, so that the step is one pass."""
AGEING_TOKENS_PER_SECOND = 50.0
"""How fast a waiting prompt gains on shorter ones."""


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
        self.snapshots = SnapshotStore(
            config.prefix_cache_bytes if traits.snapshot else 0, traits.token_bytes
        )
        self.reuse = Reuse()
        self._config = config
        self._traits = traits
        self._context = context
        self._placer = Placer(self.slots, traits, self.snapshots)
        self._decoded_last = False
        self._memory: list[MemoryOp] = []

    @property
    def running(self) -> list[Sequence]:
        return [slot.sequence for slot in self.slots if slot.sequence is not None]

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
        started = list(self._place_waiting(now))
        memory, self._memory = tuple(self._memory), []
        decoding = [s for s in self.running if s.decoding]
        prefilling = [s for s in self.running if not s.decoding]
        if decoding and prefilling:
            turn = self._prefill(prefilling, now, decoding) if self._decoded_last else None
            rows = turn or self._decode(decoding)
        else:
            rows = self._decode(decoding) or self._prefill(prefilling, now, [])
        return _plan(memory, rows), started

    def update(self, plan: BatchPlan, result: StepResult) -> list[tuple[Sequence, list[int]]]:
        """Book a step that ran. Returns each sequence that got tokens, with them."""
        self._learn(plan, result)
        self._decoded_last = bool(plan.decode_tokens)
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
        """Fill free slots in the queue's order, passing over those held back for a prefix."""
        while len(self.waiting) and any(slot.sequence is None for slot in self.slots):
            tried = (s for s in self.waiting.order(now) if self._try(s, now))
            started = next(tried, None)
            if started is None:
                return
            yield started

    def _try(self, sequence: Sequence, now: float) -> bool:
        if self._placer.worth_waiting(sequence):
            sequence.merged = True
            return False
        placement = self._placer.place(sequence, now)
        if placement is not None:
            self.waiting.remove(sequence)
            self._start(sequence, placement, now)
        return placement is not None

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
        self._count_reuse(sequence, placement, now)

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

    def _count_reuse(self, sequence: Sequence, placement: Placement, now: float) -> None:
        source, reused = placement.source, placement.reused
        if sequence.merged:
            self.reuse.merge += reused
        elif source is None:
            self.reuse.slot += reused
        elif isinstance(source, Slot):
            self.reuse.copy += reused
        else:
            self.snapshots.touch(source, now)
            self.reuse.snapshot += reused

    def _decode(self, sequences: list[Sequence]) -> list[Row]:
        """One token each (a few where a grammar forced them), and guesses where they pay."""
        drafting = self._config.draft and self._traits.trim
        seconds = self._decode_seconds(sequences)
        spare = self._config.target_step_ms / 1000 - seconds
        rate, spent = len(sequences) / max(seconds, 1e-6), 0
        rows = []
        for sequence in sequences:
            forced = min(sequence.remaining, MOST_FORCED)
            guess = self._guess(sequence, rate, spent, spare) if drafting and forced == 1 else []
            spent += len(guess) + forced - 1
            rows.append(_row(sequence, forced, guess))
        return rows + self._bridges(rows) if self._traits.trim else rows

    def _bridges(self, rows: list[Row]) -> list[Row]:
        """A row for each slot in a short gap: the prompt's next token there, or a filler.

        llama.cpp computes neighbouring streams in one pass, and a gap splits it: four streams with
        a gap take 24 ms, filled 20. For two streams the second pass costs less than the filler.
        """
        if len(rows) < FEWEST_BRIDGED:
            return []
        taken = sorted(row.slot for row in rows)
        between = [
            index
            for before, after in pairwise(taken)
            if after - before <= LONGEST_BRIDGE + 1
            for index in range(before + 1, after)
        ]
        bridges = (self._bridge(self.slots[index]) for index in between)
        return [row for row in bridges if row is not None]

    def _bridge(self, slot: Slot) -> Row | None:
        if slot.sequence is not None:
            return _row(slot.sequence, 1)
        end = len(slot.tokens)
        if end >= self._context:
            return None
        return Row(slot.index, end, slot.tokens[-1:] or [0], filler=True)

    def _guess(self, sequence: Sequence, rate: float, spent: int, spare: float) -> list[int]:
        guess = sequence.drafter.guess(sequence.tokens)
        room = sequence.limit(self._context) - sequence.generated - 1
        most = min(len(guess), room, self._config.max_step_tokens - len(self.slots) - spent)
        if most <= 0:
            return []
        before = self.cost.draft(spent)

        def extra(tokens: int) -> float:
            seconds = self.cost.draft(spent + tokens)
            return seconds - before if seconds <= spare else math.inf

        return guess[: best_length(sequence.drafter.chances(most), rate, extra)]

    def _prefill(
        self, sequences: list[Sequence], now: float, decoding: list[Sequence]
    ) -> list[Row]:
        """Shortest remaining work first, gained upon by age, as much as the budget holds."""
        order = sorted(
            sequences, key=lambda s: s.remaining - AGEING_TOKENS_PER_SECOND * (now - s.arrived)
        )
        seconds = self._config.target_step_ms / 1000 - self._decode_seconds(decoding)
        room = self._config.max_step_tokens
        rows: list[Row] = []
        for sequence in order:
            piece = min(room, sequence.remaining)
            if decoding:
                piece = self._cut(sequence, piece, seconds, first=not rows)
            if piece <= 0:
                break
            rows.append(_row(sequence, piece))
            room -= piece
            seconds -= self.cost.prefill.predict(piece, attended(sequence.computed, piece))
        return rows

    def _cut(self, sequence: Sequence, most: int, seconds: float, *, first: bool) -> int:
        """How much of the prompt fits; the first in line always gets a piece, so none starves."""
        fits = self.cost.prefill_room(sequence.computed, seconds, most)
        if first and fits < min(TILE, most):
            spare = (STRETCH - 1) * self._config.target_step_ms / 1000
            fits = self.cost.prefill_room(sequence.computed, seconds + spare, min(TILE, most))
        if fits >= TILE and fits < sequence.remaining:
            return fits - fits % TILE
        if fits < min(TILE, most):
            fits = fits * 3 // 4
        if fits >= min(SMALLEST_PIECE, sequence.remaining):
            return fits
        return min(SMALLEST_PIECE, most) if first else 0

    def _decode_seconds(self, sequences: list[Sequence]) -> float:
        if not sequences:
            return 0.0
        return self.cost.decode.predict(len(sequences), sum(s.computed + 1 for s in sequences))

    def _learn(self, plan: BatchPlan, result: StepResult) -> None:
        if result.failed or result.lost or plan.memory:
            return
        if plan.prefill_tokens and not plan.decode_tokens:
            self.cost.prefill.observe(plan.prefill_tokens, plan.attended, result.seconds)
        elif plan.draft_tokens:
            plain = self.cost.decode.predict(plan.decode_tokens, plan.attended)
            self.cost.observe_draft(plan.draft_tokens, result.seconds - plain)
        elif plan.decode_tokens and not plan.prefill_tokens:
            self.cost.decode.observe(plan.decode_tokens, plan.attended, result.seconds)


def _plan(memory: tuple[MemoryOp, ...], rows: list[Row]) -> BatchPlan:
    decode = sum(len(row.tokens) == 1 + row.draft for row in rows)
    draft = sum(row.draft for row in rows)
    return BatchPlan(
        memory=memory,
        rows=tuple(sorted(rows, key=lambda row: row.slot)),
        decode_tokens=decode,
        prefill_tokens=sum(len(row.tokens) for row in rows) - decode - draft,
        draft_tokens=draft,
        attended=sum(attended(row.position, len(row.tokens) - row.draft) for row in rows),
    )


def _row(sequence: Sequence, tokens: int, draft: list[int] | None = None) -> Row:
    end = sequence.computed + tokens
    draft = draft or []
    assert sequence.slot is not None
    return Row(
        slot=sequence.slot,
        position=sequence.computed,
        tokens=sequence.tokens[sequence.computed : end] + draft,
        sample=end == len(sequence.tokens),
        draft=len(draft),
        score=sequence.scoring,
    )
