"""Who is let in, who is sent away, and for how long: with a clock of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from server.core.errors import DeadlineExceeded, Overloaded, RateLimited, ShuttingDown
from server.core.stats import Refusal
from server.services.admission import SHORT_PROMPT, Admission
from server.services.place import Place
from server.services.quotas import Quotas

BYTES = 4_000
TOKENS = 1_600
"""What a body of so many bytes is taken to hold, until any was counted."""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Noted:
    refused: list[Refusal] = field(default_factory=list)
    waiting: int = 0

    def on_refused(self, why: Refusal) -> None:
        self.refused.append(why)

    def on_waiting_tokens(self, tokens: int) -> None:
        self.waiting = tokens


def refusal(admission: Admission, length: int = 0) -> float:
    """For how long it sends one away."""
    with pytest.raises(Overloaded) as caught, admission.admit("", length):
        pass
    return caught.value.retry_after


@contextmanager
def sent(admission: Admission, size: int) -> Iterator[Place]:
    """A request whose body is there."""
    with admission.admit("", size) as place:
        place.read(size)
        yield place


def leaving_every(seconds: float, admission: Admission, clock: Clock) -> None:
    for _ in range(50):
        with admission.admit():
            clock.now += seconds


def test_places_are_counted_and_given_back() -> None:
    admission = Admission(2)
    with admission.admit(), admission.admit():
        assert admission.inside == 2
        refusal(admission)
    with pytest.raises(ValueError, match="inside"), admission.admit():
        raise ValueError("inside")
    assert admission.inside == 0


@pytest.mark.parametrize(("waiting", "slots", "most"), [(16, 4, 20), (0, 4, 4), (0, 0, 1)])
def test_as_many_wait_beyond_the_slots_as_may(waiting: int, slots: int, most: int) -> None:
    noted = Noted()
    admission = Admission(waiting, slots=lambda: slots, stats=noted)
    with ExitStack() as inside:
        for _ in range(most):
            inside.enter_context(admission.admit())
        refusal(admission)
        assert admission.inside == most
    assert noted.refused == ["requests"]


def test_the_nth_to_be_refused_is_sent_away_for_n_gaps() -> None:
    clock = Clock()
    admission = Admission(1, clock=clock)
    leaving_every(2.0, admission, clock)
    with admission.admit():
        assert [refusal(admission) for _ in range(3)] == pytest.approx([2, 4, 6])
    with admission.admit():
        assert refusal(admission) < 6, "one place was freed for the first of them"


def test_idle_hours_do_not_count_as_slowness() -> None:
    clock = Clock()
    admission = Admission(1, clock=clock)
    leaving_every(0.5, admission, clock)
    clock.now += 7200
    with admission.admit():
        assert refusal(admission) == pytest.approx(0.5)


def test_nobody_is_sent_away_for_longer_than_sdks_wait_nor_all_to_the_same_moment() -> None:
    clock = Clock()
    admission = Admission(2, clock=clock)
    leaving_every(7.0, admission, clock)
    with admission.admit(), admission.admit():
        told = [refusal(admission) for _ in range(100)]
    assert max(told) <= 30 and len({round(seconds) for seconds in told[5:]}) > 10


def test_tokens_that_wait_are_bounded_and_short_prompts_come_in_all_the_same() -> None:
    noted = Noted()
    admission = Admission(9, most_tokens=lambda: 2 * TOKENS, stats=noted)
    with sent(admission, BYTES), sent(admission, BYTES):
        assert admission.waiting_tokens == noted.waiting == 2 * TOKENS
        refusal(admission, BYTES)
        with sent(admission, SHORT_PROMPT):
            pass
    assert noted.refused == ["tokens"] and noted.waiting == 0


def test_what_is_only_announced_takes_no_room() -> None:
    admission = Admission(9, most_tokens=lambda: 2 * TOKENS)
    with (
        admission.admit("", 4 << 20),
        admission.admit("", 4 << 20) as slow,
        sent(admission, BYTES),
        pytest.raises(Overloaded),
    ):
        slow.read(2 * BYTES)


def test_where_nothing_waits_any_prompt_is_let_in() -> None:
    admission = Admission(9, most_tokens=lambda: 10)
    with sent(admission, 1 << 20) as place:
        refusal(admission, BYTES)
        place.admitted("m", 5000, 0)
        place.began()
        with sent(admission, 1 << 20):
            assert admission.inside == 2


def test_the_true_number_takes_the_place_of_the_guess_until_the_prompt_is_read() -> None:
    admission = Admission(9)
    with sent(admission, BYTES) as place:
        assert admission.waiting_tokens == TOKENS
        place.admitted("m", 700, 0)
        assert admission.waiting_tokens == 700
        place.began()
        assert admission.waiting_tokens == 0
        place.began()
    assert admission.waiting_tokens == 0


def test_a_body_without_a_length_is_counted_while_it_comes() -> None:
    admission = Admission(9, most_tokens=lambda: 2 * TOKENS)
    with sent(admission, BYTES), admission.admit() as place:
        place.read(BYTES // 2)
        place.read(BYTES)
        assert admission.waiting_tokens == 2 * TOKENS
        with pytest.raises(Overloaded):
            place.read(BYTES + 10)
    assert admission.waiting_tokens == 0


def test_how_many_tokens_a_body_has_is_learned() -> None:
    admission = Admission(9)
    for _ in range(40):
        with sent(admission, BYTES) as place:
            place.admitted("m", BYTES // 5, 0)
    with sent(admission, BYTES):
        assert admission.waiting_tokens == pytest.approx(BYTES // 5, rel=0.05)


def test_for_tokens_it_sends_away_as_long_as_they_take_to_be_read() -> None:
    clock = Clock()
    admission = Admission(9, most_tokens=lambda: 2000, clock=clock)
    for _ in range(50):
        with sent(admission, BYTES) as place:
            place.admitted("m", TOKENS, 0)
            clock.now += 16.0
            place.began()
    with sent(admission, BYTES):
        over = 2 * TOKENS - 2000
        assert refusal(admission, BYTES) == pytest.approx(over / 100, rel=0.02)
        assert refusal(admission, BYTES) == pytest.approx((over + TOKENS) / 100, rel=0.02)


def test_a_place_in_the_queue_is_told_in_time_of_its_own_model() -> None:
    clock = Clock()
    admission = Admission(9, clock=clock)

    def come(model: str, position: int, seconds: float) -> Place:
        with admission.admit() as place:
            place.admitted(model, 5, position)
            clock.now += seconds
        return place

    assert come("slow", 3, 4.0).estimate is None, "nothing is measured yet"
    for _ in range(30):
        come("slow", 0, 4.0)
        come("quick", 0, 0.5)
    assert come("slow", 3, 4.0).estimate == pytest.approx(12.0)
    assert come("quick", 2, 0.5).estimate == pytest.approx(1.0)
    assert come("quick", 0, 0.5).estimate is None


def test_deadlines_are_of_waiting_and_of_the_whole() -> None:
    clock, noted = Clock(), Noted()
    admission = Admission(9, queue_seconds=2.0, request_seconds=10.0, clock=clock, stats=noted)
    with admission.admit() as place:
        assert (place.left(waiting=True), place.left(waiting=False)) == (2.0, 10.0)
        clock.now += 3
        assert place.left(waiting=True) == -1.0
        late = place.late(waiting=True)
        assert isinstance(late, Overloaded) and late.error_code == "server_overloaded"
        assert isinstance(place.late(waiting=False), DeadlineExceeded)
    assert noted.refused == ["queue_seconds"]
    with Admission(1).admit() as place:
        assert place.left(waiting=True) is None


def test_a_server_that_stops_lets_nobody_in() -> None:
    admission = Admission(1)
    admission.close()
    with pytest.raises(ShuttingDown), admission.admit():
        pass


def test_one_of_several_keys_leaves_the_others_some_places() -> None:
    admission = Admission(16)

    def come(scope: str, inside: ExitStack) -> bool:
        try:
            inside.enter_context(admission.admit(scope))
        except Overloaded:
            return False
        return True

    with ExitStack() as greedy, ExitStack() as modest:
        assert [come("greedy", greedy) for _ in range(17)].count(True) == 16
        assert not come("modest", modest), "nobody knew of it"
        greedy.pop_all().close()
        assert [come("greedy", greedy) for _ in range(17)].count(True) == 14
        assert [come("modest", modest) for _ in range(3)] == [True, True, False]


# Quotas


def test_a_key_has_so_many_inside_and_others_have_theirs() -> None:
    noted = Noted()
    admission = Admission(9, quotas=Quotas(2, None), stats=noted)
    with admission.admit("ada"), admission.admit("ada"):
        with pytest.raises(RateLimited) as limited, admission.admit("ada"):
            pass
        assert limited.value.kind == "requests"
        assert admission.headers("ada")["x-ratelimit-remaining-requests"] == "0"
        with admission.admit("bob"):
            assert admission.headers("bob") == {
                "x-ratelimit-limit-requests": "2",
                "x-ratelimit-remaining-requests": "1",
            }
    with admission.admit("ada"):
        pass
    assert noted.refused == ["key_requests"]


def test_a_key_pays_for_what_was_read_and_said_and_its_debts() -> None:
    clock = Clock()
    admission = Admission(9, quotas=Quotas(None, 600), clock=clock)
    with admission.admit("ada") as place:
        place.admitted("m", 500, 0)
        place.used(220)
    with pytest.raises(RateLimited) as limited, admission.admit("ada"):
        pass
    assert limited.value.kind == "tokens"
    assert limited.value.retry_after == pytest.approx(12.1)
    assert "12.1s" in limited.value.message
    assert admission.headers("ada") == {
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m12s",
    }
    clock.now += 12.1
    with admission.admit("ada"):
        pass
    clock.now += 3600
    assert admission.headers("ada")["x-ratelimit-remaining-tokens"] == "600"
    assert admission.headers("ada")["x-ratelimit-reset-tokens"] == "0ms"


def test_what_an_engine_never_took_costs_a_key_nothing() -> None:
    admission = Admission(9, quotas=Quotas(None, 10 * TOKENS), clock=Clock())
    with admission.admit("ada", BYTES) as place:
        place.read(BYTES)
        left = admission.headers("ada")["x-ratelimit-remaining-tokens"]
        assert left == str(9 * TOKENS)
    assert admission.headers("ada")["x-ratelimit-remaining-tokens"] == str(10 * TOKENS)
