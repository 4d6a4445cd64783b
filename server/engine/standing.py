"""Where a model stands: for those who look, and for those that cannot have it now."""

from __future__ import annotations

import math

from server.core.errors import EngineDown, ModelLoading
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


def still_loading(engine: PooledEngine) -> ModelLoading:
    error = ModelLoading(f"The model {engine.name} is still loading; try again shortly.")
    if engine.replicas is not None:
        error.retry_after = engine.replicas.load_left
    return error


def not_loadable(engine: PooledEngine, resident: Resident, now: float) -> EngineDown:
    """Its last load failed, and the next one is not due yet."""
    seconds = min(max(1, round(resident.cools_until - now)), 60)
    error = EngineDown(
        f"The model {engine.name} could not be loaded: {engine.why}. It is tried again in"
        f" {seconds} s."
    )
    error.retry_after = seconds
    return error


def too_large(resident: Resident) -> str:
    """The beginning of a sentence."""
    size = f"about {resident.bytes / 1e9:.1f} GB of memory"
    return f"The model {resident.name} needs {size}, more than this server may give it"
