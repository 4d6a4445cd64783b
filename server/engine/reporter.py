"""What the engine process says: frames of all that happened since the last one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from server.core.stats import StepStats
from server.core.types import EngineEvent

from .answer import Answer
from .frames import EnginePipe, StepFrame

FRAME_SECONDS = 0.016
"""Answers under way are told of no more often, as a screen shows no more: a frame wakes the API
process and its client, and on two cores that time is taken from the step."""


class Reporter:
    """Starts and ends go out with their step; text in between with the next frame that is due."""

    def __init__(self, pipe: EnginePipe, clock: Callable[[], float] = time.monotonic) -> None:
        self._pipe = pipe
        self._clock = clock
        self._events: list[EngineEvent] = []
        self._grown: dict[str, Answer] = {}
        self._steps: list[StepStats] = []
        self._sent_at = -math.inf

    def say(self, event: EngineEvent) -> None:
        self._events.append(event)

    def grew(self, request_id: str, answer: Answer, *, first: bool = False) -> None:
        """There may be new text; the first of an answer does not wait."""
        if first:
            self._tell(answer)
        else:
            self._grown[request_id] = answer

    def finished(self, request_id: str, answer: Answer) -> None:
        """The rest of its text; the event of its end comes after."""
        self._grown.pop(request_id, None)
        self._tell(answer, final=True)

    def forget(self, request_id: str) -> None:
        """Nobody listens to it any more."""
        self._grown.pop(request_id, None)

    def step(self, stats: StepStats, *, idle: bool) -> None:
        """A step is over; `idle`: none may follow for long."""
        self._steps.append(stats)
        if self._events or idle or self._clock() - self._sent_at >= FRAME_SECONDS:
            self._send()

    def flush(self) -> None:
        """A long step follows; nothing waits for its end."""
        if self._grown or self._events:
            self._send()

    def ask_patience(self, seconds: float) -> None:
        """The step that follows may take so long."""
        self._send(seconds)

    def _send(self, patience: float = 0.0) -> None:
        for answer in self._grown.values():
            self._tell(answer)
        self._pipe.send(StepFrame(tuple(self._events), tuple(self._steps), patience))
        self._events, self._grown, self._steps = [], {}, []
        self._sent_at = self._clock()

    def _tell(self, answer: Answer, *, final: bool = False) -> None:
        delta = answer.delta(final=final)
        if delta is not None:
            self._events.append(delta)
