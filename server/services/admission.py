"""How many requests may be inside. Counted before a body is parsed, so a burst costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from server.core.errors import Overloaded


class Admission:
    def __init__(self, most: int) -> None:
        self._most = most
        self.inside = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """A place for one request. Raises Overloaded when all are taken."""
        if self.inside >= self._most:
            raise Overloaded(
                "The server is busy: its waiting queue is full. Please try again shortly."
            )
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
