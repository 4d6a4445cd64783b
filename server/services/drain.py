"""How fast something is done, measured while there is any of it to do. Pure."""

from __future__ import annotations

_WEIGHT = 0.2
"""Of the newest piece done, in the mean of all."""


class Drain:
    """Told when there is something to do and how much of it was done; knows `seconds` a unit."""

    def __init__(self, guess: float) -> None:
        """`guess` seconds a unit, until one was done."""
        self._guess = guess
        self._since = 0.0
        self._took = 0.0
        self._units = 0.0

    @property
    def seconds(self) -> float:
        return self._took / self._units if self._units else self._guess

    @property
    def measured(self) -> bool:
        return self._units > 0

    def begin(self, now: float) -> None:
        """There is something to do again: the time before does not count."""
        self._since = now

    def done(self, now: float, units: float = 1.0) -> None:
        if units <= 0:
            return
        self._took += _WEIGHT * (now - self._since - self._took)
        self._units += _WEIGHT * (units - self._units)
        self._since = now
