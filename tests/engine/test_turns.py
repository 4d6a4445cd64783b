"""Which inputs a batch takes: all requests in turn, whatever the length of their lists."""

from __future__ import annotations

from array import array

from server.core.types import EmbedRequest
from server.engine.turns import Job, Turns


def _job(name: str, *lengths: int, scope: str = "") -> Job:
    inputs = [array("i", [7] * length) for length in lengths]
    return Job(EmbedRequest(name, ("x",) * len(lengths), scope=scope), 0.0, inputs)


def _turns(*jobs: Job) -> Turns:
    turns = Turns()
    for job in jobs:
        turns.add(job)
    return turns


def _names(batch: list[Job]) -> str:
    return "".join(job.id for job in batch)


def test_a_short_request_is_in_the_first_batch_beside_a_long_list() -> None:
    turns = _turns(_job("a", *[10] * 2048), _job("b", 10))
    assert _names(turns.take(100, 8)) == "abaaaaaa"


def test_a_request_that_comes_later_waits_for_one_input_of_each_other() -> None:
    turns = _turns(_job("a", *[10] * 100), _job("b", *[10] * 100))
    turns.take(30, 8)
    turns.add(_job("c", 10))
    assert "c" in _names(turns.take(30, 8))


def test_scopes_share_evenly_however_many_requests_they_have() -> None:
    crowd = [_job(name, *[10] * 50, scope="crowd") for name in "abcd"]
    turns = _turns(*crowd, _job("z", *[10] * 50, scope="one"))
    assert _names(turns.take(1000, 40)).count("z") == 20


def test_a_batch_holds_what_fits_and_the_next_begins_with_what_did_not() -> None:
    turns = _turns(_job("a", 60, 10), _job("b", 50), _job("c", 10))
    assert _names(turns.take(100, 8)) == "a"
    assert _names(turns.take(100, 8)) == "bca"
    assert not turns


def test_an_input_longer_than_the_batch_is_taken_alone() -> None:
    turns = _turns(_job("a", 500), _job("b", 10))
    assert [_names(turns.take(100, 8)) for _ in range(2)] == ["a", "b"]


def test_each_input_is_taken_once_in_its_own_order() -> None:
    jobs = [_job("a", 1, 2, 3), _job("b", 4, 5)]
    turns = _turns(*jobs)
    taken: list[int] = []
    while turns:
        before = {job.id: job.taken for job in jobs}
        for job in turns.take(6, 2):
            taken.append(len(job.inputs[before[job.id]]))
            before[job.id] += 1
    assert sorted(taken) == [1, 2, 3, 4, 5]
    assert [length for length in taken if length < 4] == [1, 2, 3]


def test_what_is_cancelled_is_never_taken_again() -> None:
    kept, gone = _job("a", 10, 10), _job("b", *[10] * 9)
    turns = _turns(kept, gone)
    turns.take(20, 2)
    gone.cancelled = True
    assert _names(turns.take(100, 8)) == "a"
    assert list(turns) == []
    turns.take(100, 8)
    assert not turns
