"""Who is served next: keys by the work done for them, a key's own requests by priority and age."""

from __future__ import annotations

from server.core.types import GenerateRequest
from server.engine.fairness import FairQueue
from server.engine.sequence import Sequence


def _sequence(name: str, scope: str = "", *, priority: int = 0, arrived: float = 0.0) -> Sequence:
    request = GenerateRequest(name, (), scope=scope, priority=priority)
    return Sequence(request, [1] * 10, arrived)


def _next(queue: FairQueue, now: float = 0.0) -> Sequence:
    return queue.order(now)[0]


def test_a_key_with_one_short_request_waits_two_turns_at_most_behind_fifty() -> None:
    queue, turns = FairQueue(), 0
    for i in range(50):
        queue.add(_sequence(f"a{i}", "a", arrived=float(i)), [])
    for _ in range(3):
        queue.remove(_next(queue))
        queue.charge("a", prompt=500, generated=100)
    queue.add(_sequence("b", "b", arrived=60.0), [])
    while (served := _next(queue, 60.0)).scope != "b":
        queue.remove(served)
        queue.charge("a", prompt=500, generated=100)
        turns += 1
    assert turns <= 2


def test_work_is_shared_evenly_between_busy_keys() -> None:
    queue, served = FairQueue(), {"a": 0, "b": 0}
    for i in range(40):
        for scope in ("a", "b"):
            queue.add(_sequence(f"{scope}{i}", scope, arrived=float(i)), [])
    for _ in range(30):
        sequence = _next(queue, 100.0)
        queue.remove(sequence)
        cost = 100 if sequence.scope == "a" else 300
        queue.charge(sequence.scope, prompt=cost)
        served[sequence.scope] += cost
    assert abs(served["a"] - served["b"]) <= 300


def test_an_idle_key_saves_up_no_credit() -> None:
    queue = FairQueue()
    queue.add(_sequence("a0", "a"), [])
    queue.charge("a", prompt=10_000)
    queue.add(_sequence("b0", "b"), [])
    order = []
    for i in range(1, 5):
        sequence = _next(queue)
        order.append(sequence.scope)
        queue.remove(sequence)
        queue.charge(sequence.scope, prompt=100)
        queue.add(_sequence(f"{sequence.scope}{i}", sequence.scope, arrived=float(i)), [])
    assert set(order) == {"a", "b"}


def test_priority_orders_a_keys_own_requests_and_age_overtakes_it() -> None:
    queue = FairQueue()
    queue.add(_sequence("old", priority=2, arrived=0.0), [])
    queue.add(_sequence("urgent", priority=0, arrived=5.0), [])
    assert _next(queue, 5.0).id == "urgent"
    queue.add(_sequence("later", priority=0, arrived=30.0), [])
    queue.remove(next(s for s in queue if s.id == "urgent"))
    assert _next(queue, 30.0).id == "old"


def test_what_is_remembered_is_bounded_by_the_keys_that_are_busy() -> None:
    queue = FairQueue()
    for i in range(1000):
        sequence = _sequence(f"r{i}", f"key{i}")
        queue.add(sequence, [])
        queue.charge(f"key{i}", prompt=10)
        queue.remove(sequence)
    queue.add(_sequence("last", "last"), [])
    assert len(queue._served) <= 3
