"""Which slot is cheapest: tokens to compute, tokens lost to others, and what moving costs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.core.plan import Copy, MemoryTraits, Restore, Trim
from server.core.types import GenerateRequest
from server.engine.placement import MOVE_COST, Placement, Placer
from server.engine.sequence import Sequence
from server.engine.slots import Slot, common_prefix
from server.engine.snapshots import SnapshotStore


def _sequence(tokens: list[int], scope: str = "") -> Sequence:
    return Sequence(GenerateRequest("r", (), scope=scope), tokens, 0.0)


def _slots(*held: list[int]) -> list[Slot]:
    slots = []
    for index, tokens in enumerate(held):
        slot = Slot(index)
        slot.tokens = tokens
        slots.append(slot)
    return slots


def _placer(slots: list[Slot], *, store: SnapshotStore | None = None, **traits: bool) -> Placer:
    return Placer(
        slots,
        MemoryTraits(**traits),
        SnapshotStore(0, MemoryTraits()) if store is None else store,
    )


def _place(placer: Placer, sequence: Sequence, now: float = 0.0) -> Placement:
    placement = placer.place(sequence, now)
    assert placement is not None
    return placement


A, B = list(range(300)), list(range(1000, 1300))


def test_the_slot_with_the_longest_prefix_is_taken_and_cut() -> None:
    slots = _slots(B, A)
    placement = _place(_placer(slots), _sequence([*A[:200], 7, 8]))
    assert (placement.slot.index, placement.reused) == (1, 200)
    assert placement.memory() == [Trim(1, 200)]


def test_a_whole_prefix_needs_no_operation() -> None:
    placement = _place(_placer(_slots(A)), _sequence([*A, 7]))
    assert placement.memory() == []


def test_one_token_is_left_to_compute() -> None:
    placement = _place(_placer(_slots(A)), _sequence(list(A)))
    assert placement.reused == len(A) - 1
    assert placement.memory() == [Trim(0, len(A) - 1)]


def test_a_prefix_in_a_busy_slot_is_copied() -> None:
    slots = _slots(A, [])
    slots[0].sequence = _sequence(A)
    placement = _place(_placer(slots), _sequence([*A[:100], 7]))
    assert placement.memory() == [Copy(0, 1, 100)]


def test_a_short_prefix_is_not_worth_a_copy() -> None:
    slots = _slots(A, [])
    slots[0].sequence = _sequence(A)
    placement = _place(_placer(slots), _sequence([*A[:MOVE_COST], 7]))
    assert (placement.slot.index, placement.reused, placement.memory()) == (1, 0, [])


def test_a_valuable_slot_is_copied_from_rather_than_cut() -> None:
    """A few shared tokens do not justify throwing a whole conversation away."""
    placement = _place(_placer(_slots(A, [])), _sequence([*A[:100], *B]))
    assert placement.memory() == [Copy(0, 1, 100)]


def test_an_empty_slot_comes_before_one_that_holds_something() -> None:
    assert _place(_placer(_slots(A, [], B)), _sequence([7, 8])).slot.index == 1


def test_neighbours_of_the_running_ones_come_first() -> None:
    """A short prefix in a slot far away is copied next to them instead."""
    slots = _slots([], [], [], A)
    slots[0].sequence = _sequence(B)
    placement = _place(_placer(slots), _sequence([*A[:30], 7]))
    assert placement.memory() == [Copy(3, 1, 30)]
    assert _place(_placer(slots), _sequence([7, 8])).slot.index == 1


def test_a_slot_is_given_up_for_its_place_only_where_host_memory_keeps_its_tokens() -> None:
    slots = _slots([], B, [])
    slots[0].sequence = _sequence(A)
    assert _place(_placer(slots), _sequence([7, 8])).slot.index == 2
    kept = _placer(slots, store=SnapshotStore(10**6, MemoryTraits()))
    assert _place(kept, _sequence([7, 8])).slot.index == 1


def test_of_two_alike_the_one_unused_longer_goes() -> None:
    slots = _slots(A, B)
    slots[0].used_at, slots[1].used_at = 50.0, 10.0
    assert _place(_placer(slots), _sequence([7, 8]), now=60.0).slot.index == 1


def test_no_free_slot_is_no_place() -> None:
    slots = _slots(A)
    slots[0].sequence = _sequence(A)
    assert _placer(slots).place(_sequence(A), 0.0) is None


def test_another_scope_finds_nothing() -> None:
    slots = _slots(A)
    assert _place(_placer(slots), _sequence([*A, 7], scope="b")).memory() == [Trim(0, 0)]


def test_a_kept_state_comes_back_to_any_free_slot() -> None:
    store = SnapshotStore(1000, MemoryTraits())
    snapshot, _ = store.add(A, "", 0.0)
    assert snapshot is not None
    placement = _place(_placer(_slots(B, []), store=store), _sequence([*A, 7]))
    assert placement.memory() == [Restore(1, snapshot.key, len(A))]


def test_memory_that_cannot_be_cut_gives_all_or_nothing() -> None:
    assert _place(_placer(_slots(A), trim=False), _sequence([*A, 7])).reused == len(A)
    assert _place(_placer(_slots(A), trim=False), _sequence([*A[:-1], 7])).memory() == [Trim(0, 0)]


def test_memory_that_cannot_be_copied_is_not() -> None:
    slots = _slots(A, [])
    slots[0].sequence = _sequence(A)
    assert _place(_placer(slots, copy=False), _sequence([*A, 7])).reused == 0


def test_waiting_pays_only_for_what_is_being_computed_and_shared() -> None:
    slots = _slots([], [])
    slots[0].sequence = running = _sequence(list(A))
    running.slot = 0
    hold = _placer(slots).hold(_sequence([*A, 7]))
    assert hold is not None and hold.donor is running and not hold.over
    assert _placer(slots).hold(_sequence(B)) is None
    assert _placer(slots).hold(_sequence([*A, 7], scope="b")) is None
    assert _placer(slots, copy=False).hold(_sequence([*A, 7])) is None
    running.computed = len(A) - 1
    assert hold.over
    assert _placer(slots).hold(_sequence([*A, 7])) is None


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_the_common_prefix_is_the_longest_one(a: list[int], b: list[int]) -> None:
    length = common_prefix(a, b)
    assert a[:length] == b[:length]
    assert a[length : length + 1] != b[length : length + 1] or length == len(a) == len(b)
