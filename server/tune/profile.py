"""What a tune leaves behind: a profile, and the weights it re-encoded with their provenance."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from server.core.config import Tuning
from server.llama.probe import Format, Quality, Speed

from .candidates import describe
from .choice import Goal
from .machine import Machine

_EDGE = 1 << 20
_CHUNK = 1 << 22


class SourceFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The model file that was tuned. `edges` is a quick digest of its size, head and tail."""

    name: str
    size: int
    edges: str
    sha256: str


class WeightsFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The re-encoded file, in the profile's own directory."""

    name: Annotated[str, Meta(pattern=r"^[^/\\]+\.gguf$")]
    format: Format
    size: int
    quality: Quality


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """`gain`, `quality`, `before` and `after` compare all of it to the file as shipped."""

    version: Annotated[int, Meta(ge=1, le=1)]
    source: SourceFile
    machine: Machine
    goal: Goal
    gain: float
    created: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}T")]
    tuning: Tuning
    weights: WeightsFile | None
    quality: Quality | None
    before: Speed
    after: Speed

    def summary(self, threads: int | None = None) -> str:
        """One line for the banner; `threads` were set by the user and are not the profile's."""
        parts = [f"{self.weights.format} weights"] if self.weights else []
        parts += [
            part for part in describe(self.tuning, 0) if threads is None or "thread" not in part
        ]
        return f"{', '.join(parts)} (ingle tune, {self.created[:10]})"


class Provenance(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a re-encoded file comes from and how near it is to that."""

    made_by: str
    source: SourceFile
    format: Format
    sha256: str
    size: int
    quality: Quality
    engine: str
    created: str


def edges(path: Path) -> str:
    """Changes with the file's size, head or tail; costs the same for any file."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_EDGE))
        file.seek(max(0, size - _EDGE))
        digest.update(file.read(_EDGE))
    return digest.hexdigest()[:16]


def sha256(path: Path) -> str:
    """Reads the whole file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
