"""Where a model stands, for those who look."""

from __future__ import annotations

import math

from server.core.stats import ModelStatus, ResidentState

from .pooled import PooledEngine
from .residency import Resident, State

_STATES: dict[State, ResidentState] = {
    State.ABSENT: "unloaded",
    State.LOADING: "loading",
    State.LOADED: "loaded",
    State.UNLOADING: "unloading",
}


def status_of(engine: PooledEngine, resident: Resident, now: float) -> ModelStatus:
    info = engine.loaded
    failed = resident.state is State.ABSENT and bool(engine.why)
    keep = resident.keep if resident.kept is None else resident.kept
    leaves = resident.leaves if resident.idle else math.inf
    return ModelStatus(
        name=engine.name,
        state="failed" if failed else _STATES[resident.state],
        bytes=resident.bytes,
        measured=resident.measured,
        pinned=resident.pinned,
        requests=resident.inside,
        waiting=len(resident.waiting),
        keep=None if keep == math.inf else keep,
        idle=now - resident.used if resident.idle else None,
        unloads_in=None if leaves == math.inf else max(0.0, leaves - now),
        load_seconds=info.load_seconds if info else None,
        error=engine.why or None,
        replicas=engine.replicas.status() if engine.replicas else (),
    )
