"""Models share a budget: nobody is thrown out while used, and nobody waits for ever."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import pytest

from server.engine.residency import Load, Residency, Resident, State, Unload

GIB = 1 << 30


@dataclass
class World:
    """Loads take `load_seconds` each; requests enter as soon as they may and last as they say."""

    residency: Residency
    load_seconds: float = 2.0
    now: float = 0.0
    loads: list[tuple[float, str]] = field(default_factory=list)
    unloads: list[str] = field(default_factory=list)
    _later: list[tuple[float, int, str, str, float]] = field(default_factory=list)
    _count: int = 0
    waited: dict[str, list[float]] = field(default_factory=dict)
    _queues: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def at(self, when: float, what: str, name: str, lasts: float = 0.0) -> None:
        self._count += 1
        self._later.append((when, self._count, what, name, lasts))

    def ask(self, when: float, name: str, lasts: float) -> None:
        self.at(when, "ask", name, lasts)

    def run(self, until: float = math.inf) -> None:
        while True:
            self._decide()
            due = self.residency.due(self.now)
            coming = min(self._later, default=None)
            if coming is None and due is None:
                return
            if coming is None or (due is not None and due < coming[0]):
                assert due is not None
                if due > until:
                    return
                self.now = due
                continue
            if coming[0] > until:
                return
            self._later.remove(coming)
            self.now = coming[0]
            getattr(self, f"_{coming[2]}")(coming[3], coming[4])

    def _decide(self) -> None:
        for action in self.residency.decide(self.now):
            resident = self.residency[action.name]
            if isinstance(action, Load):
                self.loads.append((self.now, action.name))
                self.at(self.now + self.load_seconds, "loaded", action.name)
            else:
                assert isinstance(action, Unload)
                assert resident.inside == 0 and not resident.pinned
                self.unloads.append(action.name)
                self.at(self.now + 0.1, "unloaded", action.name)
        assert self.residency.taken <= self.residency._budget

    def _ask(self, name: str, lasts: float) -> None:
        self.residency.wait(name, self.now)
        self._queues.setdefault(name, []).append((self.now, lasts))
        self._enter(name)

    def _enter(self, name: str) -> None:
        if not self.residency[name].open:
            return
        for since, lasts in self._queues.pop(name, []):
            self.residency.give_up(name, since)
            self.residency.enter(name, self.now)
            self.waited.setdefault(name, []).append(self.now - since)
            self.at(self.now + lasts, "leave", name)

    def _loaded(self, name: str, _: float) -> None:
        size = self.residency[name].bytes
        self.residency.loaded(name, size, self.load_seconds, self.now)
        self._enter(name)

    def _unloaded(self, name: str, _: float) -> None:
        self.residency.unloaded(name)

    def _leave(self, name: str, _: float) -> None:
        self.residency.leave(name, self.now)


def _world(budget: float, *residents: Resident, patience: float = 20.0) -> World:
    return World(Residency(residents, int(budget * GIB), patience=patience))


def _model(name: str, size: float = 1.0, keep: float = math.inf, pinned: bool = False) -> Resident:
    return Resident(name, int(size * GIB), keep, pinned)


def test_models_that_fit_stay_and_the_least_recently_used_idle_one_makes_room() -> None:
    world = _world(2, _model("a"), _model("b"), _model("c"))
    for when, name in ((0, "a"), (10, "b"), (20, "a"), (30, "c")):
        world.ask(when, name, 1)
    world.run()
    assert [name for _, name in world.loads] == ["a", "b", "c"]
    assert world.unloads == ["b"]


def test_a_busy_model_is_not_thrown_out_and_who_waits_for_long_is_let_in_by_closing_it() -> None:
    """`a` never rests by itself: every second somebody new comes for ten seconds."""
    world = _world(1, _model("a"), _model("b"), patience=20)
    for second in range(200):
        world.ask(second, "a", 10)
    world.ask(30, "b", 1)
    world.run()
    (waited,) = world.waited["b"]
    assert 20 <= waited <= 20 + 10 + 0.1 + world.load_seconds + 0.1
    assert [name for _, name in world.loads] == ["a", "b", "a"]


def test_requests_by_turns_are_served_in_groups() -> None:
    """At most a third of the time is spent loading, however they alternate."""
    world = _world(1, _model("a"), _model("b"), patience=10)
    for tenth in range(600):
        world.ask(tenth / 10, "ab"[tenth % 2], 0.5)
    world.run()
    assert sum(map(len, world.waited.values())) == 600
    assert len(world.loads) <= 60 / (world.load_seconds * 3) + 2
    assert max(max(waits) for waits in world.waited.values()) < 30


def test_a_pinned_model_stays_and_what_can_never_fit_beside_it_is_known() -> None:
    world = _world(2, _model("a", 1.5, pinned=True), _model("b", 1), _model("c", 0.5))
    assert not world.residency.fits_ever("b") and world.residency.fits_ever("c")
    world.ask(0, "a", 1)
    world.ask(5, "c", 1)
    world.run()
    assert world.unloads == []


def test_an_idle_model_goes_when_its_time_is_up() -> None:
    world = _world(2, _model("a", keep=30), _model("b"))
    world.ask(0, "a", 5)
    world.ask(0, "b", 5)
    world.run()
    assert world.unloads == ["a"]
    assert world.now == pytest.approx(2 + 5 + 30 + 0.1)


def test_a_load_that_failed_is_tried_again_later_and_later() -> None:
    residency = Residency([_model("a")], GIB, patience=20)
    now, tries = 0.0, []
    for _ in range(5):
        residency.wait("a", now)
        while not residency.decide(now):
            now += 0.5
        tries.append(now)
        residency.failed("a", now)
    assert tries == [0, 5, 15, 35, 75]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_everybody_is_served_in_time(seed: int) -> None:
    """Nothing busy or pinned is unloaded and the budget holds: see `World._decide`."""
    chance = random.Random(seed)
    sizes = {name: chance.uniform(0.2, 1.0) for name in "abcde"}
    keeps = {name: chance.choice([5.0, math.inf]) for name in sizes}
    world = _world(1.5, *(_model(name, sizes[name], keeps[name]) for name in sizes))
    asked = dict.fromkeys(sizes, 0)
    for _ in range(300):
        name = chance.choice("aabbcde")
        asked[name] += 1
        world.ask(chance.uniform(0, 200), name, chance.expovariate(0.5))
    world.run()
    assert {name: len(waits) for name, waits in world.waited.items()} == {
        name: count for name, count in asked.items() if count
    }
    assert max(max(waits) for waits in world.waited.values()) < 120
    states = {world.residency[name].state for name in sizes}
    assert states <= {State.LOADED, State.ABSENT}


@pytest.mark.parametrize("seed", range(4))
def test_a_large_model_gets_the_room_that_is_made_for_it(seed: int) -> None:
    """Four small ones are asked for all the time: what is emptied for the large one is not filled
    with the next small one that waits."""
    chance = random.Random(seed)
    small = [_model(name, 4) for name in "abcd"]
    world = _world(8, *small, _model("large", 8), patience=20)
    for second in range(1200):
        world.ask(second, chance.choice("abcd"), chance.uniform(2, 30))
    world.ask(60, "large", 1)
    world.run(until=1200)
    (waited,) = world.waited["large"]
    assert waited < 300


def test_a_model_that_took_more_than_it_may_can_be_loaded_again() -> None:
    """The only one takes what is free, which may be more than was free at the start."""
    residency = Residency([_model("a", 2)], 4 * GIB, patience=20)
    residency.wait("a", 0)
    assert residency.decide(0) == [Load("a")]
    residency.loaded("a", 5 * GIB, 1.0, 1.0)
    residency.unloaded("a")
    assert residency.fits_ever("a") and residency["a"].bytes == 4 * GIB


def test_nothing_is_begun_where_it_is_not_known_what_is_free() -> None:
    residency = Residency([_model("a", keep=1.0), _model("b")], 2 * GIB, patience=20)
    residency.wait("a", 0)
    residency.decide(0)
    residency.loaded("a", GIB, 1.0, 1.0)
    residency.give_up("a", 0)
    residency.wait("b", 9)

    def unknown() -> int:
        raise OSError("no more open files")

    with pytest.raises(OSError, match="no more"):
        residency.decide(10, unknown)
    assert residency["a"].state is State.LOADED
    assert residency.decide(10) == [Unload("a"), Load("b")]


def test_a_load_that_failed_leaves_nothing_of_what_was_said_meanwhile() -> None:
    residency = Residency([_model("a")], GIB, patience=20)
    residency.wait("a", 0)
    residency.decide(0)
    residency.dismiss("a")
    residency.failed("a", 1)
    residency.wait("a", 10)
    residency.decide(10)
    residency.loaded("a", GIB, 1.0, 11)
    assert residency["a"].open
