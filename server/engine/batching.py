"""Which tokens a step computes: one or a few of each running answer, or pieces of prompts. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from server.core.config import SchedulerConfig
from server.core.plan import BatchPlan, MemoryTraits, Row, StepKind

from .cost import CostModel, attended
from .drafting import best_length
from .sequence import Sequence
from .slots import Slot

SMALLEST_PIECE = 16
"""Tokens. Prompts are not cut finer: below this a prefill step is mostly overhead."""
TILE = 64
STRETCH = 1.15
"""llama.cpp's attention computes a prompt in tiles of so many tokens, and what is shorter a third
slower. Pieces are whole tiles where that keeps the gap within `STRETCH` times the target."""
ALONE = 10.0
"""Where nobody waits for a token a step may take so many times the target, and a tile at least: who
comes meanwhile waits for its end."""
MOST_FORCED = 16
"""Tokens a decode step computes at most of a sequence that has several to catch up with."""
FEWEST_BRIDGED = 3
LONGEST_BRIDGE = 2
"""Slots between two decoding ones that are computed along, so that the step is one pass."""
LONGEST_FILLED = 512
"""Tokens in an idle slot beyond which looking back on them costs more than a second pass."""
AGEING_TOKENS_PER_SECOND = 50.0
"""How fast a waiting prompt gains on shorter ones."""


class Batcher:
    """Makes the rows of a step; what a step may take, it asks the cost model."""

    def __init__(
        self,
        config: SchedulerConfig,
        traits: MemoryTraits,
        slots: list[Slot],
        cost: CostModel,
        *,
        context: int,
    ) -> None:
        self._config = config
        self._traits = traits
        self._slots = slots
        self._cost = cost
        self._context = context

    def decode(self, sequences: list[Sequence]) -> BatchPlan:
        """One token each (a few where a grammar forced them), and guesses where they pay."""
        bridges = self._bridges(sequences)
        seconds = self._decode_seconds(sequences, bridges)
        spare = self._config.target_step_ms / 1000 - seconds
        rate, spent = len(sequences) / max(seconds, 1e-6), 0
        # Every slot may have a row of its own; what is left may be tokens beyond the first.
        room = self._config.max_step_tokens - len(self._slots)
        rows = []
        for sequence in sequences:
            known = min(sequence.remaining, MOST_FORCED, 1 + room - spent)
            guess = self._guess(sequence, rate, spent, spare, room) if known == 1 else []
            spent += len(guess) + known - 1
            rows.append(_row(sequence, known, guess))
        prompts = sum(not row.filler for row in bridges)
        return _plan("decode", rows + bridges, prefill_tokens=prompts)

    def prefill(
        self, sequences: list[Sequence], now: float, decoding: list[Sequence], spent: float
    ) -> BatchPlan:
        """Shortest remaining work first, gained upon by age, as much as the budget holds.

        `decoding` are those whose gap between two tokens the step is; of it `spent` seconds go to
        memory operations.
        """
        order = sorted(
            sequences, key=lambda s: s.remaining - AGEING_TOKENS_PER_SECOND * (now - s.arrived)
        )
        seconds = self._config.target_step_ms / 1000 * (1.0 if decoding else ALONE) - spent
        seconds -= self._decode_seconds(decoding, self._bridges(decoding))
        room = self._config.max_step_tokens
        rows: list[Row] = []
        for sequence in order:
            # Scores take many times longer than what they are of.
            piece = min(room, TILE if sequence.scoring else room, sequence.remaining)
            if decoding:
                piece = self._cut(sequence, piece, seconds, first=not rows)
            else:
                piece = self._cut_alone(sequence, piece, seconds, first=not rows)
            if piece <= 0:
                break
            rows.append(_row(sequence, piece))
            room -= piece
            seconds -= self._cost.prefill.predict(piece, attended(sequence.computed, piece))
        return _plan("prefill", rows, prefill_tokens=sum(len(row.tokens) for row in rows))

    def _bridges(self, sequences: list[Sequence]) -> list[Row]:
        """A row for each slot in a short gap: the prompt's next token there, or a filler.

        llama.cpp computes neighbouring streams in one pass, and a gap splits it: four streams with
        a gap take 24 ms, filled 20. For two streams the second pass costs less than the filler.
        """
        if len(sequences) < FEWEST_BRIDGED or not self._traits.trim:
            return []
        rows = (self._bridge(self._slots[index]) for index in _gaps(sequences))
        return [row for row in rows if row is not None]

    def _bridge(self, slot: Slot) -> Row | None:
        if slot.sequence is not None:
            left_out = slot.sequence.scoring or slot.sequence.resting
            return None if left_out else _row(slot.sequence, 1)
        end = len(slot.tokens)
        if end >= min(self._context, LONGEST_FILLED):
            return None
        return Row(slot.index, end, slot.tokens[-1:] or [0], filler=True)

    def _guess(
        self, sequence: Sequence, rate: float, spent: int, spare: float, room: int
    ) -> list[int]:
        if not (self._config.draft and self._traits.trim):
            return []
        guess = sequence.drafter.guess(sequence.tokens)
        left = sequence.limit(self._context) - sequence.generated - 1
        most = min(len(guess), left, room - spent)
        if most <= 0:
            return []
        before = self._cost.draft(spent)

        def extra(tokens: int) -> float:
            seconds = self._cost.draft(spent + tokens)
            return seconds - before if seconds <= spare else math.inf

        return guess[: best_length(sequence.drafter.chances(most), rate, extra)]

    def _cut(self, sequence: Sequence, most: int, seconds: float, *, first: bool) -> int:
        """How much of the prompt fits; the first in line always gets a piece, so none starves."""
        fits = self._cost.prefill_room(sequence.computed, seconds, most)
        if first and fits < min(TILE, most):
            spare = (STRETCH - 1) * self._config.target_step_ms / 1000
            fits = self._cost.prefill_room(sequence.computed, seconds + spare, min(TILE, most))
        if fits >= TILE and fits < sequence.remaining:
            return fits - fits % TILE
        if fits < min(TILE, most):
            fits = fits * 3 // 4
        if fits >= min(SMALLEST_PIECE, sequence.remaining):
            return fits
        return min(SMALLEST_PIECE, most) if first else 0

    def _cut_alone(self, sequence: Sequence, most: int, seconds: float, *, first: bool) -> int:
        fits = self._cost.prefill_room(sequence.computed, seconds, most)
        if first:
            fits = max(fits, min(TILE, most))
        return fits - fits % TILE if TILE <= fits < sequence.remaining else fits

    def _decode_seconds(self, sequences: list[Sequence], bridges: list[Row]) -> float:
        """A step of a token each, with what is computed along."""
        if not sequences:
            return 0.0
        looked_at = sum(s.computed + 1 for s in sequences) + sum(b.position + 1 for b in bridges)
        return self._cost.decode.predict(len(sequences) + len(bridges), looked_at)


def _gaps(sequences: list[Sequence]) -> Iterator[int]:
    """The slots in short gaps between theirs."""
    taken = sorted(s.slot for s in sequences if s.slot is not None)
    for before, after in pairwise(taken):
        if after - before <= LONGEST_BRIDGE + 1:
            yield from range(before + 1, after)


def _plan(kind: StepKind, rows: list[Row], *, prefill_tokens: int) -> BatchPlan:
    draft = sum(row.draft for row in rows)
    known = sum(len(row.tokens) for row in rows if not row.filler) - draft
    return BatchPlan(
        rows=tuple(sorted(rows, key=lambda row: row.slot)),
        kind=kind,
        decode_tokens=known - prefill_tokens,
        prefill_tokens=prefill_tokens,
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
