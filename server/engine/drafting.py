"""Prompt lookup: a sequence's own text as the guess of what it says next. Pure.

Guesses are free to make and are always scored, sent or not, so a sequence that does not copy never
pays for a draft (Saxena, "Prompt Lookup Decoding", 2023, with measured acceptance).
"""

from __future__ import annotations

from collections.abc import Callable

GRAM = 3
LONGEST = 16
_LENGTHS = (1, 2, 4, 8, LONGEST)
_FADE = 0.85


class Drafter:
    """Finds the last earlier place where the sequence's newest tokens stood."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self._guess: int | None = None
        self.acceptance = 0.0

    def guess(self, tokens: list[int]) -> list[int]:
        """Up to `LONGEST` tokens that followed the last three, the last time they stood there."""
        self.index(tokens)
        start = self._after.get(tuple(tokens[-GRAM:]))
        found = tokens[start : start + LONGEST] if start is not None else []
        self._guess = found[0] if found else None
        return found

    def score(self, sampled: list[int], drafted: int) -> None:
        """Learn from a step: of `drafted` tokens all but the last of `sampled` were right."""
        if drafted:
            right = min(len(sampled) - 1, drafted)
            for _ in range(right):
                self._learn(1.0)
            if right < drafted:
                self._learn(0.0)
        elif self._guess is not None and sampled:
            self._learn(float(sampled[0] == self._guess))

    def _learn(self, hit: float) -> None:
        self.acceptance = _FADE * self.acceptance + (1 - _FADE) * hit

    def index(self, tokens: list[int]) -> None:
        """Register every run of three, newest last; the final one has nothing after it yet."""
        for end in range(max(self._indexed, GRAM), len(tokens)):
            self._after[tuple(tokens[end - GRAM : end])] = end
        self._indexed = max(self._indexed, len(tokens))


ExtraCost = Callable[[int], float]
"""Seconds a step takes longer with so many draft tokens in it."""


def best_length(acceptance: float, available: int, token_rate: float, extra: ExtraCost) -> int:
    """How many draft tokens pay: those gained a second must beat `token_rate`, by the most."""
    best, best_gain = 0, 0.0
    for length in _LENGTHS:
        length = min(length, available)
        gained = sum(acceptance**i for i in range(1, length + 1))
        gain = gained - token_rate * extra(length)
        if gain > best_gain:
            best, best_gain = length, gain
    return best
