"""Decides what each step computes. Pure: queues and a cost model in, a BatchPlan out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from server.core.config import SchedulerConfig
from server.core.plan import BatchPlan, MemoryOp, MemoryTraits, Row, StepResult, Trim
from server.core.stats import Reuse

from .cost import CostModel, attended
from .placement import Placement, place, worth_waiting_for
from .sequence import Sequence
from .slots import Slot

SMALLEST_PIECE = 16
"""Tokens. Prompts are not cut finer: below this a prefill step is mostly overhead."""
AGEING_TOKENS_PER_SECOND = 50.0
"""How fast a waiting prompt gains on shorter ones."""


class Scheduler:
    """Owns the slots, the waiting queue and the running sequences.

    A sequence runs while it has a slot. What remains of its known tokens decides how: one is a
    decode, more is prefill. While some decode, prefill goes in pieces that keep two decode steps
    within `target_step_ms` of each other, and the two kinds of step take turns.
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
        self.waiting: list[Sequence] = []
        self.cost = cost or CostModel()
        self.reuse = Reuse()
        self._config = config
        self._traits = traits
        self._context = context
        self._decoded_last = False
        self._memory: list[MemoryOp] = []

    @property
    def running(self) -> list[Sequence]:
        return [slot.sequence for slot in self.slots if slot.sequence is not None]

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

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
        decoding = [s for s in self.running if s.remaining == 1]
        prefilling = [s for s in self.running if s.remaining > 1]
        if decoding and prefilling:
            turn = self._prefill(prefilling, now, decoding) if self._decoded_last else None
            rows = turn or self._decode(decoding)
        else:
            rows = self._decode(decoding) or self._prefill(prefilling, now, [])
        return self._plan(memory, rows), started

    def update(self, plan: BatchPlan, result: StepResult) -> list[tuple[Sequence, int]]:
        """Book a step that ran. Returns each sequence that got a token, with it."""
        self._learn(plan, result)
        self._decoded_last = bool(plan.decode_tokens)
        advanced = []
        for row in plan.rows:
            slot = self.slots[row.slot]
            sequence = slot.sequence
            if sequence is None or row.slot in result.failed:
                continue
            slot.tokens += row.tokens
            sequence.computed += len(row.tokens)
            if row.slot in result.sampled:
                sequence.tokens.append(result.sampled[row.slot])
                advanced.append((sequence, result.sampled[row.slot]))
        return advanced

    def _place_waiting(self, now: float) -> Iterator[Sequence]:
        for sequence in list(self.waiting):
            if all(slot.sequence is not None for slot in self.slots):
                return
            if worth_waiting_for(sequence, self.slots, self._traits):
                sequence.merged = True
                continue
            placement = place(sequence, self.slots, self._traits, now)
            if placement is not None:
                self.waiting.remove(sequence)
                self._start(sequence, placement, now)
                yield sequence

    def _start(self, sequence: Sequence, placement: Placement, now: float) -> None:
        self._memory += placement.memory()
        slot, reused = placement.slot, placement.reused
        slot.tokens = sequence.tokens[:reused]
        slot.scope, slot.sequence, slot.used_at = sequence.scope, sequence, now
        sequence.slot, sequence.started = slot.index, now
        sequence.computed = sequence.cached = reused
        if sequence.merged:
            self.reuse.merge += reused
        elif placement.source is not None:
            self.reuse.copy += reused
        else:
            self.reuse.slot += reused

    def _decode(self, sequences: Iterable[Sequence]) -> list[Row]:
        return [_row(s, 1) for s in sequences]

    def _prefill(
        self, sequences: list[Sequence], now: float, decoding: list[Sequence]
    ) -> list[Row]:
        """Shortest remaining work first, gained upon by age, as much as the budget holds."""
        order = sorted(
            sequences, key=lambda s: s.remaining - AGEING_TOKENS_PER_SECOND * (now - s.arrived)
        )
        seconds, room = self._budget(decoding), self._config.max_step_tokens
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
        if fits >= min(SMALLEST_PIECE, sequence.remaining):
            return fits
        return min(SMALLEST_PIECE, most) if first else 0

    def _budget(self, decoding: list[Sequence]) -> float:
        """Seconds of prefill between two decode steps."""
        looked_at = sum(s.computed + 1 for s in decoding)
        decode = self.cost.decode.predict(len(decoding), looked_at) if decoding else 0.0
        return self._config.target_step_ms / 1000 - decode

    def _plan(self, memory: tuple[MemoryOp, ...], rows: list[Row]) -> BatchPlan:
        sizes = [len(row.tokens) for row in rows]
        prefill = sum(size for size in sizes if size > 1)
        return BatchPlan(
            memory=memory,
            rows=tuple(sorted(rows, key=lambda row: row.slot)),
            decode_tokens=sum(sizes) - prefill,
            prefill_tokens=prefill,
            attended=sum(attended(row.position, len(row.tokens)) for row in rows),
        )

    def _learn(self, plan: BatchPlan, result: StepResult) -> None:
        if result.failed or plan.memory:
            return
        if plan.decode_tokens and not plan.prefill_tokens:
            self.cost.decode.observe(plan.decode_tokens, plan.attended, result.seconds)
        elif plan.prefill_tokens and not plan.decode_tokens:
            self.cost.prefill.observe(plan.prefill_tokens, plan.attended, result.seconds)


def _row(sequence: Sequence, tokens: int) -> Row:
    end = sequence.computed + tokens
    assert sequence.slot is not None
    return Row(
        slot=sequence.slot,
        position=sequence.computed,
        tokens=sequence.tokens[sequence.computed : end],
        sample=end == len(sequence.tokens),
    )
