"""When an engine is taken to hang, by a clock of ours."""

from __future__ import annotations

from server.engine.watchdog import Watchdog


def _looks(dog: Watchdog, start: float, seconds: float, *, owing: bool = True) -> float | None:
    """When it says so, looking every interval from `start` on."""
    now = start
    while now <= start + seconds:
        if dog.tick(now, owing=owing):
            return now
        now += dog.interval
    return None


def test_no_progress_is_seen_soon_after_the_time_it_may_take() -> None:
    dog = Watchdog(10)
    dog.start(0.0)
    found = _looks(dog, 0.0, 100)
    assert found is not None and 10 < found <= 10 + 4 * dog.interval


def test_an_engine_that_owes_nothing_may_rest_and_has_all_its_time_afterwards() -> None:
    dog = Watchdog(10)
    dog.start(0.0)
    assert _looks(dog, 0.0, 1000, owing=False) is None
    found = _looks(dog, 1000.5, 100)
    assert found is not None and found > 1010


def test_a_step_that_is_known_to_take_long_is_waited_for_and_the_next_one_is_not() -> None:
    dog = Watchdog(10)
    dog.start(0.0)
    dog.progress(1.0, patience=60)
    assert _looks(dog, 1.0, 59) is None
    dog.progress(61.0, patience=0)
    found = _looks(dog, 61.0, 100)
    assert found is not None and found < 73


def test_frames_read_after_the_whole_machine_slept_count() -> None:
    dog = Watchdog(10)
    dog.start(0.0)
    assert not dog.tick(1000.0, owing=True) and dog.overdue
    dog.progress(1000.1, patience=0)
    assert not dog.overdue and _looks(dog, 1000.2, 9) is None
