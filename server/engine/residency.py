"""Which models are in memory: who is loaded next, who makes room, who waits. Pure.

Swapping costs seconds, so a model that was loaded stays for a while and takes along all that wait
for it; a model that waits too long is made room for by letting nobody new into another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
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
    """`bytes` are estimated until it is loaded, then measured. Times are monotonic seconds.

    `keep` is how long it stays once nobody uses it. `inside` counts the requests that use it,
    `waiting` are the arrivals of those that would.
    """

    name: str
    bytes: int
    keep: float = math.inf
    pinned: bool = False
    state: State = State.ABSENT
    inside: int = 0
    waiting: list[float] = field(default_factory=list)
    draining: bool = False
    used: float = 0.0
    stays_until: float = 0.0
    failures: int = 0
    cools_until: float = 0.0

    @property
    def open(self) -> bool:
        """Whether a request may enter now."""
        return self.state is State.LOADED and not self.draining

    @property
    def idle(self) -> bool:
        return self.state is State.LOADED and not self.inside and not (self.waiting and self.open)


class Residency:
    """Told what happens, it says what to load and unload. `budget` is in bytes."""

    def __init__(self, residents: Iterable[Resident], budget: int, *, patience: float) -> None:
        """`patience`: seconds after which a waiting model is made room for by force."""
        self._residents = {resident.name: resident for resident in residents}
        self._budget = budget
        self._patience = patience

    def __getitem__(self, name: str) -> Resident:
        return self._residents[name]

    @property
    def taken(self) -> int:
        """Bytes of all that is not absent."""
        return sum(r.bytes for r in self._residents.values() if r.state is not State.ABSENT)

    def fits_ever(self, name: str) -> bool:
        """Whether it could be loaded with everything unloaded that may be."""
        pinned = sum(r.bytes for r in self._residents.values() if r.pinned and r.name != name)
        return self._residents[name].bytes + pinned <= self._budget

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

    def leave(self, name: str, now: float) -> None:
        resident = self._residents[name]
        resident.inside -= 1
        resident.used = now

    def loaded(self, name: str, size: int, seconds: float, now: float) -> None:
        resident = self._residents[name]
        resident.state, resident.bytes, resident.draining = State.LOADED, size, False
        resident.failures, resident.used = 0, now
        resident.stays_until = now + SHARE_OF_SERVING * seconds

    def failed(self, name: str, now: float) -> None:
        """It could not be loaded; who waits is told by the caller."""
        resident = self._residents[name]
        resident.state = State.ABSENT
        resident.waiting.clear()
        cooling = min(FIRST_COOLING * 2**resident.failures, LAST_COOLING)
        resident.failures += 1
        resident.cools_until = now + cooling

    def unloaded(self, name: str) -> None:
        resident = self._residents[name]
        resident.state, resident.draining = State.ABSENT, False

    def decide(self, now: float) -> list[Load | Unload]:
        """What to begin now. To be asked after every event and at `due`."""
        actions: list[Load | Unload] = [
            self._unload(r) for r in self._residents.values() if self._expired(r, now)
        ]
        for wanted in self._wanted(now):
            if wanted.bytes <= self._budget - self.taken:
                wanted.state = State.LOADING
                actions.append(Load(wanted.name))
                continue
            victims = self._victims(wanted, now)
            if victims is not None:
                actions += [self._unload(victim) for victim in victims]
                break  # what becomes free is for this one
            if now - wanted.waiting[0] >= self._patience:
                self._drain_for(wanted, now)
        return actions

    def due(self, now: float) -> float | None:
        """When the next decision may change without an event."""
        times = [r.used + r.keep for r in self._residents.values() if r.idle and not r.pinned]
        times += [r.cools_until for r in self._residents.values() if r.waiting]
        wanted = list(self._wanted(now))
        if wanted:
            times += [r.stays_until for r in self._residents.values() if r.state is State.LOADED]
            times += [r.waiting[0] + self._patience for r in wanted]
        return min((time for time in times if now < time < math.inf), default=None)

    def _expired(self, resident: Resident, now: float) -> bool:
        return resident.idle and not resident.pinned and now >= resident.used + resident.keep

    def _unload(self, resident: Resident) -> Unload:
        resident.state = State.UNLOADING
        return Unload(resident.name)

    def _wanted(self, now: float) -> list[Resident]:
        """Absent and asked for, who waits longest first."""
        found = [
            r
            for r in self._residents.values()
            if r.state is State.ABSENT and r.waiting and now >= r.cools_until
        ]
        return sorted(found, key=lambda r: r.waiting[0])

    def _victims(self, wanted: Resident, now: float) -> list[Resident] | None:
        """The idle ones, least recently used first, that make room; None if they do not.

        None too many: bytes of what is being unloaded are as good as free.
        """
        idle = [r for r in self._residents.values() if r.idle and self._may_go(r, now)]
        return self._enough(wanted, sorted(idle, key=lambda r: r.used))

    def _may_go(self, resident: Resident, now: float) -> bool:
        return not resident.pinned and (resident.draining or now >= resident.stays_until)

    def _enough(self, wanted: Resident, candidates: list[Resident]) -> list[Resident] | None:
        leaving = sum(r.bytes for r in self._residents.values() if r.state is State.UNLOADING)
        missing = wanted.bytes - (self._budget - self.taken + leaving)
        chosen: list[Resident] = []
        for candidate in candidates:
            if missing <= 0:
                break
            chosen.append(candidate)
            missing -= candidate.bytes
        return chosen if missing <= 0 else None

    def _drain_for(self, wanted: Resident, now: float) -> None:
        """Nobody new enters the models that make room, so that they become idle."""
        loaded = [r for r in self._residents.values() if r.state is State.LOADED]
        candidates = [r for r in loaded if self._may_go(r, now)]
        chosen = self._enough(wanted, sorted(candidates, key=lambda r: (not r.draining, r.used)))
        for resident in chosen or ():
            resident.draining = True
