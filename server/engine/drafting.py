"""Prompt lookup: a sequence's own text as the guess of what it says next. Pure.

Guesses are free to make and are always scored, sent or not, so a sequence that does not copy never
pays for a draft (Saxena, "Prompt Lookup Decoding", 2023, with measured acceptance).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

GRAM = 3
LONGEST = 16
_LENGTHS = (1, 2, 4, 8, LONGEST)
_MATCHES = (GRAM, 4, 6, 9, 16)
_PRIOR = (0.2, 0.35, 0.55, 0.75, 0.9)
"""How often a guess is right after so many tokens that stood there before too, until measured."""
_PRIOR_WEIGHT = 3.0
_FADE = 0.9


class Drafter:
    """Finds the last earlier place where the sequence's newest tokens stood.

    The longer the match, the likelier the guess: how often guesses were right is kept apart by the
    length of the match.
    """

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self._guess: int | None = None
        self._matched = 0
        self._right = [prior * _PRIOR_WEIGHT for prior in _PRIOR]
        self._scored = [_PRIOR_WEIGHT] * len(_PRIOR)

    def guess(self, tokens: list[int]) -> list[int]:
        """Up to `LONGEST` tokens that followed the last three, the last time they stood there."""
        self.index(tokens)
        start = self._after.get(tuple(tokens[-GRAM:]))
        if start is None:
            self._guess = None
            return []
        self._matched = _match(tokens, start)
        self._guess = tokens[start]
        return tokens[start : start + LONGEST]

    def chances(self, count: int) -> list[float]:
        """For each of the newest guesses, how likely it is right if those before it are."""
        places = (_place(self._matched + ahead) for ahead in range(count))
        return [self._right[place] / self._scored[place] for place in places]

    def score(self, sampled: list[int], drafted: int) -> None:
        """Learn from a step: of `drafted` tokens all but the last of `sampled` were right."""
        if drafted:
            right = min(len(sampled) - 1, drafted)
            for ahead in range(right):
                self._learn(ahead, 1.0)
            if right < drafted:
                self._learn(right, 0.0)
        elif self._guess is not None and sampled:
            self._learn(0, float(sampled[0] == self._guess))
        self._guess = None

    def _learn(self, ahead: int, hit: float) -> None:
        place = _place(self._matched + ahead)
        self._right[place] = _FADE * self._right[place] + hit
        self._scored[place] = _FADE * self._scored[place] + 1.0

    def index(self, tokens: list[int]) -> None:
        """Register every run of three, newest last; the final one has nothing after it yet."""
        for end in range(max(self._indexed, GRAM), len(tokens)):
            self._after[tuple(tokens[end - GRAM : end])] = end
        self._indexed = max(self._indexed, len(tokens))


def _match(tokens: list[int], start: int) -> int:
    """How many of the newest tokens also stand right before `start`, as far as it matters."""
    most = min(_MATCHES[-1], start)
    length = GRAM
    while length < most and tokens[start - 1 - length] == tokens[-1 - length]:
        length += 1
    return length


def _place(matched: int) -> int:
    return bisect_right(_MATCHES, matched) - 1


ExtraCost = Callable[[int], float]
"""Seconds a step takes longer with so many draft tokens in it."""


def best_length(chances: Sequence[float], token_rate: float, extra: ExtraCost) -> int:
    """How many draft tokens pay: those gained a second must beat `token_rate`, by the most."""
    best, best_gain = 0, 0.0
    gained, chance, known = 0.0, 1.0, 0
    for length in sorted({min(length, len(chances)) for length in _LENGTHS}):
        for likely in chances[known:length]:
            chance *= likely
            gained += chance
        known = length
        gain = gained - token_rate * extra(length)
        if gain > best_gain:
            best, best_gain = length, gain
    return best
