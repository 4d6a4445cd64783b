"""Who goes on in a new engine process, and when: suspects first, and one by one. Pure.

What was being computed when a process died may have been the cause. Its requests are handed in one
after the other, the next when the one before has been told something new; all others follow. So
when the new process dies as well, one request is to blame and the rest are not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Trial:
    def __init__(self) -> None:
        self.suspect: str | None = None
        """The one that shows itself now."""
        self._suspects: deque[str] = deque()
        self._others: list[str] = []

    def begin(self, suspects: Iterable[str], others: Iterable[str]) -> list[str]:
        """In a new process. Returns those to be handed in now, as `over` does."""
        self.suspect = None
        self._suspects, self._others = deque(suspects), list(others)
        return self._next()

    def holds_back(self, request_id: str) -> bool:
        """Whether a new request has to wait; then it goes in with the others."""
        if self.suspect is None:
            return False
        self._others.append(request_id)
        return True

    def over(self, request_id: str) -> list[str]:
        """It did no harm, or has left."""
        return self._next() if request_id == self.suspect else []

    def _next(self) -> list[str]:
        self.suspect = self._suspects.popleft() if self._suspects else None
        if self.suspect is not None:
            return [self.suspect]
        others, self._others = self._others, []
        return others
