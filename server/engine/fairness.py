"""The waiting queue: keys share the work, priorities order a key's own requests. Pure.

Virtual token counters as in "Fairness in Serving Large Language Models" (arXiv 2401.00588): each
key is charged for the tokens computed for it, and the key charged least is served next. A key that
was idle starts at the level of the least served busy one, so it can neither hoard nor be owed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .sequence import Sequence

GENERATED_WEIGHT = 2.0
"""A generated token takes about as long as this many prompt tokens."""
AGEING_SECONDS = 10.0
"""Waiting this long is worth one step of priority."""


class FairQueue:
    def __init__(self) -> None:
        self._waiting: list[Sequence] = []
        self._served: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._waiting)

    def add(self, sequence: Sequence, running: Iterable[Sequence]) -> None:
        busy = {s.scope for s in (*self._waiting, *running)}
        floor = min((self._served.get(scope, 0.0) for scope in busy), default=None)
        if floor is None:
            self._served = {}
        else:
            kept = self._served.items()
            self._served = {s: done for s, done in kept if s in busy or done > floor}
        if sequence.scope not in busy:
            self._served[sequence.scope] = max(self._served.get(sequence.scope, 0.0), floor or 0.0)
        self._waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        self._waiting.remove(sequence)

    def charge(self, scope: str, *, prompt: int = 0, generated: int = 0) -> None:
        work = prompt + GENERATED_WEIGHT * generated
        self._served[scope] = self._served.get(scope, 0.0) + work

    def order(self, now: float) -> list[Sequence]:
        """Who is served next, first to last."""
        return sorted(
            self._waiting,
            key=lambda s: (
                self._served.get(s.scope, 0.0),
                s.request.priority - (now - s.arrived) / AGEING_SECONDS,
            ),
        )
