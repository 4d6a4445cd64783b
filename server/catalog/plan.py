"""What a reference turns out to be: files to fetch, their places, and what clients call it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urljoin

from server.core.errors import ConfigError

from .https import PATIENCE, Patience
from .hub import read_repository
from .quants import choose, split_parts
from .reference import HubReference, UrlReference
from .spec import Catalog
from .store import ModelStore
from .web import Web


@dataclass(frozen=True, slots=True)
class WantedFile:
    """One file to fetch. `size` in bytes, a hint unless `exact`."""

    label: str
    source: str
    path: Path
    size: int | None = None
    exact: bool = False
    sha256: str | None = None

    @property
    def is_here(self) -> bool:
        """A file gets its final name when it is verified."""
        return self.exact and self.path.is_file() and self.path.stat().st_size == self.size


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reference turned out to be. `name` is what clients call it."""

    name: str
    reference: HubReference | UrlReference
    source: str
    inner_path: str
    files: tuple[WantedFile, ...]
    licence: str | None = None

    @property
    def path(self) -> Path:
        return self.files[0].path

    @property
    def size(self) -> int | None:
        """In bytes, if it is known."""
        sizes = [file.size for file in self.files]
        return sum(size or 0 for size in sizes) if all(sizes) else None


def plan(
    reference: HubReference | UrlReference,
    catalog: Catalog,
    store: ModelStore,
    environ: Mapping[str, str] = os.environ,
    patience: Patience = PATIENCE,
) -> Plan:
    """Ask where the reference leads. Raises ConfigError for a model that is not there, and
    ModelFileError."""
    if isinstance(reference, UrlReference):
        return _plan_url(reference, catalog, store)
    with Web(environ, timeout=patience.stall) as web:
        repository = read_repository(reference.repo, web, patience)
    choice = choose(repository.files, reference)
    files = []
    for path in choice.files:
        known = repository.files[path]
        label = path.rsplit("/", 1)[-1]
        place = store.place(reference) / path
        exact = known.size is not None
        files.append(WantedFile(label, known.url, place, known.size, exact, known.sha256))
    source = files[0].source
    return Plan(choice.name, reference, source, choice.files[0], tuple(files), repository.licence)


def _plan_url(reference: UrlReference, catalog: Catalog, store: ModelStore) -> Plan:
    """The parts of a split model lie side by side; a checksum is that of the part it came with."""
    names = split_parts(reference.file)
    if len(names) > 1 and reference.url.startswith("http:"):
        raise ConfigError(f"{reference.url} is a part of a split model; these need https://")
    place = store.place(reference)
    files = []
    for name in names:
        given = name == reference.file
        url = reference.url if given else urljoin(reference.url, quote(name))
        sha256 = reference.sha256 if given else None
        files.append(WantedFile(name, url, place / name, sha256=sha256))
    name = _free_name(reference, names[0], catalog, store)
    return Plan(name, reference, reference.url, names[0], tuple(files))


def _free_name(reference: UrlReference, file: str, catalog: Catalog, store: ModelStore) -> str:
    """The file's, unless another model has it."""
    stem = file.removesuffix(".gguf").partition("-00001-of-")[0]
    place = store.place(reference)
    others = [model for model in store.pulled() if model.path.parent != place]
    taken = any(model.record.name == stem for model in others)
    if taken or catalog.find(stem) or store.named(stem):
        return f"{stem}-{place.name}"
    return stem
