"""The machine, as far as it makes answers slow: processor, memory, and who else uses them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from server.cli.units import in_bytes
from server.llama.machine import CGROUP, available_memory, cpu_quota, usable_threads
from server.tune.machine import this_machine

from .finding import Finding, ok, warn

_CPUS = Path("/sys/devices/system/cpu")
_LOOK_SECONDS = 0.5
_BUSY = 0.25
_SWAPPED = 0.05
_OWN_SCALING = ("intel_pstate", "amd-pstate", "amd-pstate-epp")
"""With these drivers `powersave` scales with the load, and a preference says how eagerly."""


def machine_findings(threads: int | None) -> Iterator[Finding]:
    """`threads` as set, None for what is allowed."""
    yield processor()
    yield threads_finding(threads, usable_threads())
    yield governor()
    yield others()
    yield memory()
    yield swap(psutil.swap_memory().used, psutil.virtual_memory().total)


def processor(root: Path = CGROUP) -> Finding:
    cores, name = usable_threads(), this_machine().processor
    about = f"{name}, {cores} core{'s' if cores != 1 else ''} may be used"
    quota = cpu_quota(root)
    if quota is not None and quota < 1:
        return warn(
            "processor",
            f"{about}, but for {quota:.2g} of the time only",
            "give the container a whole CPU or more (--cpus, resources.limits.cpu)",
        )
    return ok("processor", about)


def threads_finding(threads: int | None, cores: int) -> Finding:
    if threads is None or threads == cores:
        return ok("threads", f"{cores}, one a core")
    if threads > cores:
        return warn(
            "threads",
            f"{threads} on {cores} cores: each step waits for threads that cannot run",
            f"leave the setting threads out, or set it to {cores}",
        )
    return warn(
        "threads",
        f"{threads} of {cores} cores compute",
        "leave the setting threads out, unless other programs need the rest",
    )


def governor(cpus: Path = _CPUS) -> Finding:
    """Of the first processor: they go together."""
    folder = cpus / "cpu0" / "cpufreq"
    name, driver = _read(folder / "scaling_governor"), _read(folder / "scaling_driver")
    if not name:
        return ok("frequency", "decided outside (a virtual machine, or no frequency control)")
    if driver in _OWN_SCALING:
        preference = _read(folder / "energy_performance_preference")
        slow = preference in ("power", "balance_power")
        shown = f"{name} ({driver}), preference {preference or 'unknown'}"
        remedy = "set it with `powerprofilesctl set performance`"
    else:
        slow, shown = name == "powersave", f"{name} ({driver})"
        remedy = "set it with `cpupower frequency-set -g performance`"
    if slow:
        return warn("frequency", f"{shown}: the processor is kept slow", remedy)
    return ok("frequency", shown)


def others(seconds: float = _LOOK_SECONDS) -> Finding:
    """Measured now."""
    busy = psutil.cpu_percent(interval=seconds) / 100
    if busy >= _BUSY:
        return warn(
            "other programs",
            f"the processor is {busy:.0%} busy now",
            "stop what else computes; every core taken away slows each step down",
        )
    return ok("other programs", f"the processor is {busy:.0%} busy now")


def memory() -> Finding:
    free, total = available_memory(), psutil.virtual_memory().total
    shown = f"{in_bytes(free)} can be taken, of {in_bytes(total)}"
    if free < 1 << 30:
        return warn("memory", shown, "close other programs, or raise the container's limit")
    return ok("memory", shown)


def swap(used: int, total: int) -> Finding:
    """Bytes."""
    if used > _SWAPPED * total:
        return warn(
            "swap",
            f"{in_bytes(used)} are swapped out: a model in them answers at the disk's speed",
            "close other programs, or choose smaller models",
        )
    return ok("swap", f"{in_bytes(used)} are swapped out" if used else "nothing is swapped out")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
