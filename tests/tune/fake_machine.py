"""A machine whose speeds are made up: what the tuner asks is answered from a formula."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from server.catalog import ResolvedModel, read_header
from server.core.config import RunnerConfig
from server.llama.probe import (
    Answer,
    Compare,
    Done,
    Encode,
    KeepReference,
    MeasureSpeed,
    Quality,
    Request,
    Speed,
)
from server.tune.machine import Machine
from server.tune.prober import ProbeFailed
from server.tune.store import ProfileStore
from tests.gguf_files import gguf, write_gguf

MACHINE = Machine(processor="Test CPU", features="f00d", cores=2, engine="llama-cpp-python 0")

Formula = Callable[[str, RunnerConfig], float]
"""How many times as fast as the file as shipped, by weight format («» for its own) and settings."""


class FakeMachine:
    """A `Measuring`. `noise` slows each measurement by up to that share, as neighbours do."""

    def __init__(self, formula: Formula, *, noise: float = 0.0) -> None:
        self.formula = formula
        self.noise = noise
        self.qualities: dict[str, Quality] = {}
        self.broken: set[str] = set()
        self.full_disk = False
        self.load = 0.0
        self.asked: list[Request] = []
        self._random = random.Random(1)

    def ask(self, request: Request) -> Answer:
        self.asked.append(request)
        form = format_of(request.target if isinstance(request, Encode) else request.config.path)
        if form in self.broken:
            raise ProbeFailed(f"its process ended (signal 6: {form} is broken)")
        match request:
            case Encode(_, target):
                write_gguf(Path(target), gguf())
                return Done("test")
            case KeepReference() if self.full_disk:
                raise ProbeFailed("OSError: no space left on device")
            case KeepReference(_, keep):
                Path(keep).write_bytes(b"reference")
                return Done("test")
            case Compare():
                return self.qualities.get(form, Quality(0.004, 0.96, 361))
            case MeasureSpeed(config):
                factor = self.formula(form, config) * (1 - self.noise * self._random.random())
                return Speed(300 * factor, 100 * factor, 200 * factor, 10**8, 23_040)

    def other_load(self) -> float:
        return self.load

    def close(self) -> None:
        pass


def format_of(path: str) -> str:
    """`x-12345678.Q8_0.part` was written as Q8_0; the model itself has no such ending."""
    return path.rsplit(".", 2)[-2] if path.endswith(".part") else ""


def model_in(folder: Path, name: str = "tiny", content: bytes | None = None) -> ResolvedModel:
    path = write_gguf(folder / f"{name}.gguf", content)
    return ResolvedModel(name, path, {}, read_header(path))


def store_for(folder: Path, model: ResolvedModel, machine: Machine = MACHINE) -> ProfileStore:
    return ProfileStore(folder, model.path, machine)
