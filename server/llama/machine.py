"""What this process may use: cores by affinity and cgroup quota, memory by limit and free RAM."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
_GPU_BACKEND = re.compile(r"(lib)?ggml-(cuda|hip|vulkan|metal|sycl|musa)\.(so|dll|dylib)")


def usable_threads() -> int:
    """Physical cores in the affinity mask, capped by the cgroup quota (floor, at least 1)."""
    cpus = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    cores = {_siblings(cpu) for cpu in cpus}
    return max(1, min(len(cores), int(cpu_quota() or len(cores))))


def _siblings(cpu: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return _read(path) or str(cpu)


def cpu_quota(root: Path = CGROUP) -> float | None:
    """CPUs' worth of time the tightest enclosing cgroup allows (v2 `cpu.max`, v1 `cpu.cfs_*`)."""
    quotas = [_quota_v2(_read(folder / "cpu.max")) for folder in _cgroup_folders(root)]
    quotas.append(
        _quota_v1(
            _read(root / "cpu" / "cpu.cfs_quota_us"), _read(root / "cpu" / "cpu.cfs_period_us")
        )
    )
    return min((quota for quota in quotas if quota), default=None)


def available_memory(root: Path = CGROUP) -> int:
    """Bytes that can be taken now: free RAM, or what cgroup limits still allow if less."""
    free = [int(psutil.virtual_memory().available)]
    for folder in _cgroup_folders(root):
        limit, used = _read(folder / "memory.max"), _read(folder / "memory.current")
        if limit.isdigit() and used.isdigit():
            free.append(max(0, int(limit) - int(used) + _page_cache(folder)))
    return min(free)


def allowed_memory(memory_bytes: int | None, taken: int = 0) -> int:
    """Bytes that can be taken now, of `memory_bytes` of which so many are taken already."""
    free = available_memory()
    return free if memory_bytes is None else max(0, min(free, memory_bytes - taken))


def has_gpu_backend() -> bool:
    """Whether the installed llama.cpp was built with one."""
    files = metadata.files("llama-cpp-python") or []
    return any(_GPU_BACKEND.fullmatch(file.name) for file in files)


def _page_cache(folder: Path) -> int:
    """Bytes of files the kernel gives back when asked; a limit counts them as used."""
    fields = (line.split() for line in _read(folder / "memory.stat").splitlines())
    return next((int(value) for name, value in fields if name == "inactive_file"), 0)


def resident_memory() -> int:
    return int(psutil.Process().memory_info().rss)


def _cgroup_folders(root: Path) -> Iterator[Path]:
    own = next(
        (line[3:] for line in _read(Path("/proc/self/cgroup")).splitlines() if line[:3] == "0::"),
        "/",
    )
    folder = root / own.lstrip("/")
    while folder != root and root in folder.parents:
        yield folder
        folder = folder.parent
    yield root


def _quota_v2(line: str) -> float | None:
    parts = line.split()
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and parts[0].isdigit() else None


def _quota_v1(quota: str, period: str) -> float | None:
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
