from __future__ import annotations

from contextlib import ExitStack

import pytest

from server.core.errors import Overloaded
from server.services.admission import Admission


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refusal(admission: Admission) -> int:
    with pytest.raises(Overloaded) as caught, admission.admit():
        pass
    return caught.value.retry_after


def leaving_every(seconds: float, admission: Admission, clock: Clock) -> None:
    for _ in range(50):
        with admission.admit():
            clock.now += seconds


def test_places_are_counted_and_given_back() -> None:
    admission = Admission(2)
    with admission.admit(), admission.admit():
        assert admission.inside == 2
        assert refusal(admission) == 1
    with pytest.raises(ValueError, match="inside"), admission.admit():
        raise ValueError("inside")
    assert admission.inside == 0


def test_the_nth_to_be_refused_is_sent_away_for_n_gaps() -> None:
    clock = Clock()
    admission = Admission(1, clock)
    leaving_every(2.0, admission, clock)
    with admission.admit():
        assert [refusal(admission) for _ in range(3)] == [2, 4, 6]
    with admission.admit():
        assert refusal(admission) in (5, 6), "one place was freed for the first of them"


def test_nobody_is_sent_away_for_longer_than_sdks_wait() -> None:
    clock = Clock()
    admission = Admission(2, clock)
    leaving_every(500.0, admission, clock)
    with ExitStack() as inside:
        inside.enter_context(admission.admit())
        inside.enter_context(admission.admit())
        assert {refusal(admission) for _ in range(100)} == {30}
