"""Which machine this is, as far as speed is concerned."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

from msgspec import Struct

from server.llama.machine import cpu_quota, usable_threads

_CPUINFO = Path("/proc/cpuinfo")


class Machine(Struct, frozen=True, forbid_unknown_fields=True):
    """A tuned profile holds for one of these. `features` is a digest of the processor's flags."""

    processor: str
    features: str
    cores: int
    engine: str

    @property
    def key(self) -> str:
        return digest(repr((self.processor, self.features, self.cores, self.engine)))

    def is_same_hardware(self, other: Machine) -> bool:
        return (self.processor, self.features) == (other.processor, other.features)


def this_machine() -> Machine:
    info = cpu_info()
    return Machine(
        processor=info.get("model name") or platform.processor() or platform.machine(),
        features=digest(" ".join(sorted(cpu_flags(info)))),
        cores=usable_threads(),
        engine=f"llama-cpp-python {metadata.version('llama-cpp-python')}",
    )


def cpu_info(path: Path = _CPUINFO) -> dict[str, str]:
    """The first processor's block; empty where there is no such file."""
    try:
        block = path.read_text(errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_flags(info: dict[str, str]) -> frozenset[str]:
    return frozenset(info.get("flags", info.get("Features", "")).split())


def logical_threads() -> int:
    """Hardware threads this process may use."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(allowed, int(cpu_quota() or allowed)))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
