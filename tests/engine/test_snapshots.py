"""The byte accounting of states kept in host memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.core.plan import MemoryTraits
from server.engine.snapshots import SnapshotStore

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=12)
EVENTS = st.lists(st.tuples(TOKENS, st.sampled_from(["a", "b"])), max_size=30)


@given(EVENTS, st.integers(0, 40))
def test_never_holds_more_than_its_capacity_nor_anothers_tokens(
    events: list[tuple[list[int], str]], capacity: int
) -> None:
    store, held = SnapshotStore(capacity, MemoryTraits()), {}
    for now, (tokens, scope) in enumerate(events):
        snapshot, gone = store.add(tokens, scope, float(now))
        for key in gone:
            del held[key]
        assert (snapshot is None) == (len(tokens) > capacity)
        if snapshot is not None:
            held[snapshot.key] = (tokens, scope)
        assert store.size == sum(len(tokens) for tokens, _ in held.values()) <= capacity
        found, shared = store.find(tokens, scope)
        if found is not None:
            assert held[found.key] == (found.tokens, scope)
            assert found.tokens[:shared] == tokens[:shared]
        if snapshot is not None:
            assert shared == len(tokens)


def test_the_least_recently_used_goes_first() -> None:
    store = SnapshotStore(30, MemoryTraits())
    first, _ = store.add([1] * 10, "", 1.0)
    store.add([2] * 10, "", 2.0)
    store.add([3] * 10, "", 3.0)
    assert first is not None
    store.touch(first, 4.0)
    _, gone = store.add([4] * 10, "", 5.0)
    assert store.find([1] * 10, "")[1] == 10
    assert store.find([2] * 10, "")[1] == 0
    assert len(gone) == 1


def test_a_longer_state_replaces_its_own_prefix() -> None:
    store = SnapshotStore(100, MemoryTraits())
    short, _ = store.add([1, 2, 3], "", 1.0)
    _, gone = store.add([1, 2, 3, 4], "", 2.0)
    assert short is not None
    assert gone == [short.key]
    assert store.size == 4


def test_states_that_cannot_be_cut_are_all_kept_and_found_whole() -> None:
    store = SnapshotStore(1000, MemoryTraits(trim=False, state_bytes=100))
    opening, _ = store.add([1] * 20, "", 1.0)
    grown, gone = store.add([1] * 20 + [2] * 20, "", 2.0)
    assert opening is not None and grown is not None and gone == []
    assert store.size == 2 * 100 + 20 + 40
    assert store.find([1] * 20 + [2] * 15, "") == (opening, 20), "the longer one cannot be cut"
    assert store.find([1] * 20 + [2] * 25, "") == (grown, 40)
    assert store.find([1] * 19, "") == (None, 0)
    again, gone = store.add([1] * 20, "", 3.0)
    assert again is not None and gone == [opening.key]
