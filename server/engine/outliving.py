"""What an engine knew when it ended, for the next one: prefixes read from files, and written."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from server.core.config import StoreConfig
from server.core.protocol import ModelRunner

from .placement import WORTH_SAVING
from .scheduler import Scheduler
from .slots import common_prefix
from .state_files import StateFiles, Unusable

log = logging.getLogger("ingle.engine")

SECONDS = 4.0
"""For writing at the end; what was used last comes first."""

MOST_SKIPPED = 8
"""States that do not fit: smaller ones may come after them, but many files are not read in vain."""


class Restored(Struct, frozen=True):
    states: int = 0
    refused: dict[str, int] = {}


class _Known(Struct, frozen=True):
    """A prefix, and where it is: the index of a slot, or the key it is kept under."""

    tokens: list[int]
    scope: str
    used_at: float
    place: int
    in_slot: bool


class Outliving:
    """None of it where there is no directory, or the model's states mean nothing elsewhere."""

    def __init__(
        self, config: StoreConfig | None, runner: ModelRunner, scheduler: Scheduler
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._files: StateFiles | None = None
        if config is not None and runner.memory.key and scheduler.snapshots.keeps:
            try:
                self._files = StateFiles(Path(config.directory), runner.memory.key, config.bytes)
            except Unusable as unusable:
                log.warning("prefixes are not kept", extra={"reason": str(unusable)})

    def restore(self) -> Restored:
        """What fits where kept states are, before the first request comes."""
        if self._files is None:
            return Restored()
        found, room, skipped = [], self._scheduler.snapshots.capacity, 0
        for state in self._files.load():
            fits = len(state.tokens) <= self._runner.info.context
            if fits and len(state.state) <= room:
                room -= len(state.state)
                found.append(state)
                continue
            skipped += 1
            if skipped > MOST_SKIPPED:
                break
        now = time.monotonic()
        for state in reversed(found):  # those used last are to stay the longest
            snapshots = self._scheduler.snapshots
            kept, gone = snapshots.add(state.tokens, state.scope, now - state.age)
            for key in gone:
                self._runner.forget(key)
            if kept is not None:
                self._runner.keep(kept.key, state.state)
        return Restored(len(self._scheduler.snapshots), dict(self._files.refused))

    def keep(self) -> None:
        """The engine ends: what its slots hold and what they lost, as far as time allows."""
        if self._files is None:
            return
        until, kept = time.monotonic() + SECONDS, 0
        for known in self._worth_keeping():
            if time.monotonic() > until:
                break
            state = self._state(known)
            if state is not None:
                kept += self._files.keep(known.tokens, known.scope, state)
        log.info("prefixes are kept", extra={"states": kept})

    def _state(self, known: _Known) -> memoryview | None:
        if known.in_slot:
            return self._runner.state_of(known.place)
        return self._runner.kept(known.place)

    def _worth_keeping(self) -> Iterator[_Known]:
        """The latest first; none that is the beginning of another, where states can be cut."""
        slots = [
            _Known(slot.tokens, slot.scope, slot.used_at, slot.index, True)
            for slot in self._scheduler.slots
            if len(slot.tokens) >= WORTH_SAVING
        ]
        kept = [
            _Known(s.tokens, s.scope, s.used_at, s.key, False) for s in self._scheduler.snapshots
        ]
        chosen: list[_Known] = []
        for known in sorted((*slots, *kept), key=lambda known: -len(known.tokens)):
            if not any(self._covers(other, known) for other in chosen):
                chosen.append(known)
        yield from sorted(chosen, key=lambda known: -known.used_at)

    def _covers(self, other: _Known, known: _Known) -> bool:
        if other.scope != known.scope:
            return False
        shared = common_prefix(other.tokens, known.tokens)
        if not self._runner.memory.trim:
            return shared == len(known.tokens) == len(other.tokens)
        return shared == len(known.tokens)
