"""Which models are in memory: who is loaded next, who makes room, who waits. Pure.

Swapping costs seconds, so a model that was loaded stays for a while and takes along all that wait
for it; a model that waits too long is made room for by letting nobody new into another one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

FIRST_COOLING = 5.0
LAST_COOLING = 60.0
"""Seconds after a failed load in which the next one is not tried, doubling from the first."""
SHARE_OF_SERVING = 2.0
"""A model stays at least so many times as long as it took to load: at most a third of the time
goes into loading, whatever is asked for."""


class State(Enum):
    ABSENT = "absent"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"


@dataclass(frozen=True, slots=True)
class Load:
    name: str


@dataclass(frozen=True, slots=True)
class Unload:
    name: str


@dataclass(slots=True)
class Resident:
    """`bytes` are the `estimate` until it is loaded, then measured. Times are monotonic seconds.

    `keep` is how long it stays once nobody uses it, unless who used it last said something else.
    `inside` counts the requests that use it, `waiting` are the arrivals of those that would. Nobody
    new enters it while it is `draining`, and `dismissed` it goes whatever else is said.
    """

    name: str
    bytes: int
    keep: float = math.inf
    pinned: bool = False
    measured: bool = False
    state: State = State.ABSENT
    inside: int = 0
    waiting: list[float] = field(default_factory=list)
    draining: bool = False
    dismissed: bool = False
    kept: float | None = None
    used: float = 0.0
    stays_until: float = 0.0
    failures: int = 0
    cools_until: float = 0.0
    estimate: int = 0

    def __post_init__(self) -> None:
        self.expect(self.bytes)

    def expect(self, size: int) -> None:
        """So many bytes when it is loaded next."""
        self.bytes = self.estimate = size
        self.measured = False

    @property
    def open(self) -> bool:
        """Whether a request may enter now."""
        return self.state is State.LOADED and not self.draining

    @property
    def idle(self) -> bool:
        return self.state is State.LOADED and not self.inside and not (self.waiting and self.open)

    @property
    def leaves(self) -> float:
        """When it goes by itself, if nobody uses it until then."""
        keep = self.keep if self.kept is None else self.kept
        return math.inf if self.pinned else self.used + keep


class Residency:
    """Told what happens, it says what to load and unload. `budget` is in bytes."""

    def __init__(self, residents: Iterable[Resident], budget: int, *, patience: float) -> None:
        """`patience`: seconds after which a waiting model is made room for by force."""
        self._residents = {resident.name: resident for resident in residents}
        self._budget = budget
        self._patience = patience
        self._available = sys.maxsize

    def __getitem__(self, name: str) -> Resident:
        return self._residents[name]

    def __contains__(self, name: object) -> bool:
        return name in self._residents

    def __iter__(self) -> Iterator[Resident]:
        return iter(list(self._residents.values()))

    def add(self, resident: Resident) -> None:
        """A new one, or an absent one as it is from now on."""
        assert self._state_of(resident.name) is State.ABSENT
        self._residents[resident.name] = resident

    def remove(self, name: str) -> None:
        """An absent one that nobody waits for."""
        assert self._state_of(name) is State.ABSENT
        del self._residents[name]

    def resize(self, budget: int, patience: float) -> None:
        """Nothing is thrown out for it: what is in memory goes as others need it."""
        self._budget, self._patience = budget, patience

    @property
    def budget(self) -> int:
        return self._budget

    @property
    def taken(self) -> int:
        """Bytes of all that is not absent."""
        return sum(r.bytes for r in self if r.state is not State.ABSENT)

    def fits_ever(self, name: str) -> bool:
        """Whether it could be loaded with everything unloaded that may be."""
        return self._residents[name].bytes <= self._room_for(name)

    def hopeless(self) -> list[Resident]:
        """Absent ones that are waited for in vain."""
        waited = (r for r in self if r.state is State.ABSENT and r.waiting)
        return [r for r in waited if not self.fits_ever(r.name)]

    def _room_for(self, name: str) -> int:
        """Bytes, with everything unloaded that may be."""
        return self._budget - sum(r.bytes for r in self if r.pinned and r.name != name)

    def fits_now(self, name: str) -> bool:
        """Whether it could be loaded with nothing unloaded."""
        return self._residents[name].bytes <= self._budget - self.taken

    def wait(self, name: str, now: float) -> None:
        self._residents[name].waiting.append(now)

    def give_up(self, name: str, since: float) -> None:
        """Of one that waited since then."""
        self._residents[name].waiting.remove(since)

    def enter(self, name: str, now: float) -> None:
        resident = self._residents[name]
        assert resident.open
        resident.inside += 1
        resident.used = now

    def leave(self, name: str, now: float, keep: float | None = None) -> None:
        """`keep`: for how long it shall stay now."""
        resident = self._residents[name]
        resident.inside -= 1
        resident.used, resident.kept = max(resident.used, now), keep

    def dismiss(self, name: str) -> None:
        """It goes once those inside have left; who comes meanwhile waits for the next load."""
        resident = self._residents[name]
        resident.dismissed = resident.draining = True

    def loaded(self, name: str, size: int, seconds: float, now: float) -> None:
        resident = self._residents[name]
        resident.state, resident.bytes, resident.measured = State.LOADED, size, True
        resident.draining = resident.dismissed
        resident.failures, resident.used, resident.kept = 0, now, None
        resident.stays_until = now + SHARE_OF_SERVING * seconds

    def failed(self, name: str, now: float) -> None:
        """It could not be loaded; who waits is told by the caller."""
        resident = self._residents[name]
        self.unloaded(name)
        resident.waiting.clear()
        cooling = min(FIRST_COOLING * 2**resident.failures, LAST_COOLING)
        resident.failures += 1
        resident.cools_until = now + cooling

    def unloaded(self, name: str) -> None:
        resident = self._residents[name]
        resident.state, resident.draining, resident.dismissed = State.ABSENT, False, False
        room = self._room_for(name)
        if resident.bytes > room >= resident.estimate:  # it took what was free; it can do with less
            resident.bytes = room

    def decide(
        self, now: float, available: Callable[[], int] = lambda: sys.maxsize
    ) -> list[Load | Unload]:
        """What to begin now. To be asked after every event and at `due`.

        `available` bytes of the machine's memory are not taken by anybody, whatever the budget.
        """
        queue = self._wanted(now)
        if queue:  # asked first: where that fails, nothing has been begun
            self._available = available() - self._bytes(State.LOADING)
        else:  # those that room was to be made for have given up
            for resident in self:
                resident.draining = resident.dismissed
        actions: list[Load | Unload] = [self._unload(r) for r in self if self._expired(r, now)]
        for wanted in queue:
            if self._missing(wanted) <= 0 or self._is_last_hope(wanted):
                wanted.state = State.LOADING
                self._available -= wanted.bytes
                actions.append(Load(wanted.name))
                continue
            victims = self._victims(wanted, now)
            if victims is not None:
                actions += [self._unload(victim) for victim in victims]
                break  # what becomes free is for this one
            if now - wanted.waiting[0] >= self._patience and self._drain_for(wanted, now):
                break  # as above: what is emptied now is not for who comes next
        return actions

    def due(self, now: float) -> float | None:
        """When the next decision may change without an event."""
        times = [r.leaves for r in self if r.idle]
        times += [r.cools_until for r in self if r.waiting]
        wanted = list(self._wanted(now))
        if wanted:
            times += [r.stays_until for r in self if r.state is State.LOADED]
            times += [r.waiting[0] + self._patience for r in wanted]
        return min((time for time in times if now < time < math.inf), default=None)

    def _expired(self, resident: Resident, now: float) -> bool:
        return resident.idle and (resident.dismissed or now >= resident.leaves)

    def _unload(self, resident: Resident) -> Unload:
        resident.state = State.UNLOADING
        return Unload(resident.name)

    def _wanted(self, now: float) -> list[Resident]:
        """Absent and asked for, who waits longest first."""
        found = [r for r in self if r.state is State.ABSENT and r.waiting and now >= r.cools_until]
        return sorted(found, key=lambda r: r.waiting[0])

    def _victims(self, wanted: Resident, now: float) -> list[Resident] | None:
        """The idle ones, least recently used first, that make room; None if they do not.

        None too many: bytes of what is being unloaded are as good as free.
        """
        idle = [r for r in self if r.idle and self._may_go(r, now)]
        return self._enough(wanted, sorted(idle, key=lambda r: r.used))

    def _may_go(self, resident: Resident, now: float) -> bool:
        return not resident.pinned and (resident.draining or now >= resident.stays_until)

    def _missing(self, wanted: Resident) -> int:
        """Bytes, 0 or less when it may be loaded."""
        return wanted.bytes - min(self._budget - self.taken, self._available)

    def _is_last_hope(self, wanted: Resident) -> bool:
        """It fits in the budget and nothing could make more room: its engine looks for itself."""
        rest = [r for r in self if r.state is not State.ABSENT and not r.pinned]
        return not rest and wanted.bytes <= self._budget - self.taken

    def _enough(self, wanted: Resident, candidates: list[Resident]) -> list[Resident] | None:
        missing = self._missing(wanted) - self._bytes(State.UNLOADING)
        chosen: list[Resident] = []
        for candidate in candidates:
            if missing <= 0:
                break
            chosen.append(candidate)
            missing -= candidate.bytes
        return chosen if missing <= 0 else None

    def _drain_for(self, wanted: Resident, now: float) -> bool:
        """Nobody new enters the models that make room, so that they become idle; if they do."""
        candidates = [r for r in self if r.state is State.LOADED and self._may_go(r, now)]
        chosen = self._enough(wanted, sorted(candidates, key=lambda r: (not r.draining, r.used)))
        for resident in chosen or ():
            resident.draining = True
        return chosen is not None

    def _bytes(self, state: State) -> int:
        return sum(r.bytes for r in self if r.state is state)

    def _state_of(self, name: str) -> State:
        known = self._residents.get(name)
        return State.ABSENT if known is None else known.state
