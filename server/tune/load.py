"""How much of the processor others took while we measured."""

from __future__ import annotations

import os
import time

import psutil


class OtherLoad:
    """Counts from its creation on. Child processes count as ours once they have ended."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._busy = _busy()
        self._own = _own()

    def share(self) -> float:
        """0 to 1, of all the machine's processors."""
        elapsed = (time.monotonic() - self._at) * (os.cpu_count() or 1)
        others = (_busy() - self._busy) - (_own() - self._own)
        return min(1.0, max(0.0, others / elapsed)) if elapsed > 0 else 0.0


def _busy() -> float:
    """Seconds; a guest's time is part of user time already."""
    idle = {"idle", "iowait", "guest", "guest_nice"}
    times = psutil.cpu_times()._asdict()
    return float(sum(seconds for name, seconds in times.items() if name not in idle))


def _own() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
