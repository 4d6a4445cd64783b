"""When an engine is taken to hang: it owes progress, and finishes no step. Pure."""

from __future__ import annotations

_LOOKS = 3
"""How often in a row it must be overdue: a whole machine that slept has frames yet to be read."""


class Watchdog:
    """Fed with the times of finished steps, asked every `interval` seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.interval = min(0.5, seconds / 10)
        self._since = 0.0
        self._patience = seconds
        self._late = 0

    @property
    def overdue(self) -> bool:
        return self._late > 0

    def start(self, now: float) -> None:
        """A new process."""
        self._since, self._patience, self._late = now, self._seconds, 0

    def progress(self, now: float, patience: float) -> None:
        """A step is done, or one begins that may take `patience` seconds."""
        self._since, self._patience, self._late = now, max(self._seconds, patience), 0

    def tick(self, now: float, *, owing: bool) -> bool:
        """Whether it hangs."""
        if not owing:
            self._since, self._late = now, 0
        elif now - self._since > self._patience:
            self._late += 1
        return self._late >= _LOOKS
