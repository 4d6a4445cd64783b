"""How often the kernel ended a process of ours because memory was out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def kills(mount: Path = _MOUNT, own: Path = _OWN) -> int:
    """Of our control group, as far as the kernel counts them; else 0."""
    for counters in _counters(mount, own):
        try:
            lines = counters.read_text().splitlines()
        except OSError:
            continue
        found = dict(line.split(maxsplit=1) for line in lines if " " in line)
        if "oom_kill" in found:
            return int(found["oom_kill"])
    return 0


def _counters(mount: Path, own: Path) -> Iterator[Path]:
    """Version 1 names the memory controller, version 2 none; a container may see only the root."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if "memory" in controllers.split(","):
            yield mount / "memory" / path.lstrip("/") / "memory.oom_control"
            yield mount / "memory" / "memory.oom_control"
        elif not controllers:
            yield mount / path.lstrip("/") / "memory.events"
            yield mount / "memory.events"
