"""When a model that is not there should be: from how long its last load took. Pure."""

from __future__ import annotations

_GUESS = 2.0
_LEAST, _MOST = 1.0, 60.0
"""Seconds. SDKs do not come back at all when told to wait for longer."""


class LoadTime:
    def __init__(self) -> None:
        self._begun = 0.0
        self._took: float | None = None

    def begin(self, at: float) -> None:
        """A load begins then."""
        self._begun = at

    def end(self, now: float) -> None:
        self._took = now - self._begun

    def left(self, now: float) -> float:
        """Seconds to send a client away for; half as long again as it is late already."""
        due = self._begun + (_GUESS if self._took is None else self._took)
        seconds = due - now if due > now else (now - self._begun) / 2
        return min(max(seconds, _LEAST), _MOST)
