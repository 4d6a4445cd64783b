"""Sequences that wait until the grammars of their answers are compiled."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from server.core.errors import IngleError, Overloaded
from server.core.protocol import Compiled

from .sequence import Sequence

AT_ONCE = 2
"""Grammars; a hostile one holds up a thread for over a second, and then the rest has another."""
PATIENCE = 0.5
"""Seconds after which none begins: with what one takes at most, all are answered in 2.5."""

Compile = Callable[[str], Compiled]
Done = Callable[[Sequence, Compiled | IngleError], None]


class Compiling:
    """A grammar is compiled once for all that wait for it, in the order in which they came.

    What another engine process admitted is not refused any more, however long it waits.

    `done` is called for each of them, with the compiled grammar or why there is none, and never
    for one that was dropped.
    """

    def __init__(
        self, compile: Compile, done: Done, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._compile = compile
        self._done = done
        self._clock = clock
        self._lock = threading.Lock()
        self._grammars: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
        self._waiting: dict[str, list[Sequence]] = {}
        """By grammar, those that are queued or being compiled."""

    def put(self, sequence: Sequence) -> None:
        grammar = sequence.request.grammar
        with self._lock:
            if grammar not in self._waiting:
                self._waiting[grammar] = []
                self._grammars.put((grammar, self._clock()))
            self._waiting[grammar].append(sequence)

    def drop(self, sequence_id: str) -> None:
        with self._lock:
            for waiting in self._waiting.values():
                waiting[:] = [sequence for sequence in waiting if sequence.id != sequence_id]

    def work(self) -> None:
        """Never returns; for `AT_ONCE` threads."""
        while True:
            grammar, arrived = self._grammars.get()
            outcome = self._outcome(grammar, arrived)
            # What is dropped meanwhile must not be done after it.
            with self._lock:
                for sequence in self._waiting.pop(grammar):
                    self._done(sequence, outcome)

    def _outcome(self, grammar: str, arrived: float) -> Compiled | IngleError:
        """Nobody looks at that of a grammar for which nobody waits any more."""
        if not self._waiting[grammar]:
            return None
        admitted = any(sequence.request.resume for sequence in self._waiting[grammar])
        if self._clock() - arrived > PATIENCE and not admitted:
            return Overloaded("The server is busy compiling grammars. Please try again shortly.")
        try:
            return self._compile(grammar)
        except IngleError as error:
            return error
