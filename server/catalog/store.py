"""Where model files lie on this machine, and which are there.

DIR/FILE.gguf                    the catalogue's models, and what people put there themselves
DIR/hf/ORG/REPO/FILE.gguf        pulled from Hugging Face, each beside FILE.gguf.json, its record
DIR/web/HOST/xxxxxxxx/FILE.gguf  pulled from an address, the same; xxxxxxxx tells addresses apart
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from .reference import HubReference, UrlReference, is_safe_path
from .spec import Catalog, ModelSpec

_RECORD = ".json"


class StoredFile(Struct, frozen=True):
    """`size` in bytes."""

    file: str
    size: int
    sha256: str


class Record(Struct, frozen=True):
    """What is known of a pulled model. It is written last: with it, the model is whole.

    `name` is what clients call it, `reference` what was asked for, `source` where it came from.
    `path` is its path in its repository.
    """

    name: str
    reference: str
    source: str
    path: str
    files: tuple[StoredFile, ...]
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class PulledModel:
    """`path` is the file an engine loads: of a split model, the first part."""

    record: Record
    path: Path

    @property
    def files(self) -> list[Path]:
        return [self.path.with_name(stored.file) for stored in self.record.files]

    @property
    def size(self) -> int:
        return sum(stored.size for stored in self.record.files)


class ModelStore:
    """One directory of .gguf files. A file under its final name is always whole."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()

    def path(self, spec: ModelSpec) -> Path:
        return self.directory / spec.file

    def part(self, spec: ModelSpec) -> Path:
        """The unfinished download."""
        return part_of(self.path(spec))

    def has(self, spec: ModelSpec) -> bool:
        path = self.path(spec)
        return path.is_file() and (not spec.verified or path.stat().st_size == spec.size)

    def named(self, word: str) -> Path | None:
        """A file put here by hand, by its name with or without .gguf."""
        path = self.directory / (word if word.endswith(".gguf") else f"{word}.gguf")
        return path if path.parent == self.directory and path.is_file() else None

    def others(self, catalog: Catalog) -> list[Path]:
        """The .gguf files here that the catalogue does not know."""
        known = {spec.file for spec in catalog}
        return sorted(path for path in self.directory.glob("*.gguf") if path.name not in known)

    def place(self, reference: HubReference | UrlReference) -> Path:
        """The directory of what is pulled from there."""
        if isinstance(reference, HubReference):
            return self.directory / "hf" / reference.repo
        digest = hashlib.sha256(reference.url.encode()).hexdigest()[:8]
        return self.directory / "web" / reference.host.replace(":", "_") / digest

    def pulled(self, below: Path | None = None) -> list[PulledModel]:
        """The whole models that were pulled by reference, sorted by name."""
        folders = [below] if below else [self.directory / "hf", self.directory / "web"]
        found = (model for folder in folders for model in _records(folder))
        return sorted(found, key=lambda model: model.record.name.lower())

    def pulled_as(self, name: str) -> PulledModel | None:
        return next((model for model in self.pulled() if model.record.name == name), None)


def part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_RECORD}")


def _records(folder: Path) -> Iterator[PulledModel]:
    for path in folder.rglob(f"*.gguf{_RECORD}"):
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        model = PulledModel(record, path.with_name(path.name.removesuffix(_RECORD)))
        if _is_whole(model):
            yield model


def _is_whole(model: PulledModel) -> bool:
    sizes = {stored.file: stored.size for stored in model.record.files}
    if model.path.name not in sizes or not all(map(is_safe_path, sizes)):
        return False
    try:
        return all(path.stat().st_size == sizes[path.name] for path in model.files)
    except OSError:
        return False
