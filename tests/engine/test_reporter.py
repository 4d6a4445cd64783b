"""What the engine process says, and when, by a clock of ours."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from server.core.types import Failed, Finished, GenerateRequest, SamplingParams, TextPiece, Usage
from server.engine.answer import Answer
from server.engine.frames import EnginePipe, StepFrame, _reports
from server.engine.reporter import FRAME_SECONDS, Reporter
from tests.fakes import step_stats

SHORT = FRAME_SECONDS / 4


class Letters:
    """A vocabulary: token 0 is a, 1 is b …"""

    def piece(self, token: int) -> bytes:
        return bytes([97 + token])

    spelling = piece


class Side:
    """A reporter, and what came out of its pipe."""

    def __init__(self) -> None:
        self.now = 0.0
        ours, theirs = socket.socketpair()
        self._ours = ours.makefile("rb")
        ours.setblocking(False)
        self._pipe = EnginePipe(theirs)
        self.ends = (self._ours, ours, self._pipe._reader, theirs)
        self.reporter = Reporter(self._pipe, clock=lambda: self.now)

    def step(self, seconds: float = SHORT, *, idle: bool = False) -> None:
        self.now += seconds
        self.reporter.step(step_stats(), idle=idle)

    def frame(self) -> StepFrame | None:
        """None while nothing was sent."""
        header = self._ours.read(4)
        if not header:
            return None
        body = self._ours.read(int.from_bytes(header, "big"))
        frame = _reports.decode(body)
        assert isinstance(frame, StepFrame)
        return frame

    def said(self) -> list[str] | None:
        """Of a frame, the texts; ends as `!`."""
        frame = self.frame()
        return frame and [getattr(event, "text", "!") for event in frame.events]


@pytest.fixture
def side() -> Iterator[Side]:
    made = Side()
    yield made
    for end in made.ends:
        end.close()


def answer(name: str) -> Answer:
    return Answer(GenerateRequest(name, (TextPiece(""),), SamplingParams()))


def grow(side: Side, name: str, found: Answer, token: int, *, first: bool = False) -> None:
    found.add(token, None, Letters())
    side.reporter.grew(name, found, first=first)


def test_short_steps_share_a_frame_and_their_text_is_joined(side: Side) -> None:
    found = answer("a")
    grow(side, "a", found, 0, first=True)
    side.step()
    assert side.said() == ["a"], "the first text does not wait"
    for token in (1, 2, 3):
        grow(side, "a", found, token)
        side.step()
        assert side.frame() is None
    grow(side, "a", found, 4)
    side.step()
    frame = side.frame()
    assert frame is not None
    assert [(event.text, event.tokens) for event in frame.events] == [("bcde", (1, 2, 3, 4))]
    assert len(frame.steps) == 4, "no step is missing in the statistics"
    assert side.frame() is None


def test_a_long_step_is_a_frame(side: Side) -> None:
    found = answer("a")
    for token in range(3):
        grow(side, "a", found, token)
        side.step(FRAME_SECONDS)
        assert side.said() == ["abc"[token]]


def test_an_end_takes_the_rest_along_and_what_others_have(side: Side) -> None:
    ended, goes_on, failed = answer("a"), answer("b"), answer("c")
    side.step()
    assert side.said() == []
    grow(side, "a", ended, 0)
    grow(side, "b", goes_on, 1)
    grow(side, "c", failed, 2)
    side.reporter.finished("a", ended)
    side.reporter.say(Finished("a", "stop", Usage(1, 0, 1), 0.0))
    side.reporter.forget("c")
    side.reporter.say(Failed("c", "EngineError", "gone"))
    side.step()
    assert side.said() == ["a", "!", "!", "b"]


def test_nothing_waits_for_a_long_step(side: Side) -> None:
    found = answer("a")
    side.step()
    assert side.said() == []
    grow(side, "a", found, 0)
    side.step()
    assert side.frame() is None
    side.reporter.flush()
    assert side.said() == ["a"]
    side.reporter.flush()
    assert side.frame() is None


def test_nothing_is_kept_when_no_step_may_follow(side: Side) -> None:
    side.step()
    assert side.frame() is not None
    side.step(idle=True)
    frame = side.frame()
    assert frame is not None and len(frame.steps) == 1
