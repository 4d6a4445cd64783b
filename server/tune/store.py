"""The `tuned` directory below the models: profiles, re-encoded weights, provenance.

Names start with the model's stem and digest. Nothing here was put there by a person, so what no
profile names may be removed.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from server.catalog import ResolvedModel, read_header
from server.core.errors import ConfigError, ModelFileError

from .machine import Machine
from .profile import Profile, Provenance, edges

log = logging.getLogger("ingle.tune")

_PROFILE = ".profile.json"


class ProfileStore:
    """What is kept for one model file on this machine."""

    def __init__(self, models_dir: Path, model: Path, machine: Machine) -> None:
        self.directory = models_dir / "tuned"
        self.machine = machine
        self.edges = edges(model)
        self._prefix = f"{model.name.removesuffix('.gguf')}-{self.edges[:8]}."
        self.path = self.directory / f"{self._prefix}{machine.key}{_PROFILE}"

    def find(self, model: str) -> Profile | None:
        """The profile to serve with. One that cannot be used is a warning line, not an error."""
        try:
            if self.path.exists():
                return self._usable()
            self._tell_of_others(model)
        except (OSError, ValueError, ModelFileError) as error:
            why = str(error).replace("\n", " ")
            told = {"model": model, "path": str(self.path), "reason": why}
            log.warning("the tuned profile is ignored", extra=told)
        return None

    def apply(self, profile: Profile, model: ResolvedModel) -> ResolvedModel:
        """The model, computed from the profile's weights, under its own name."""
        if profile.weights is None:
            return model
        path = self.weights_path(profile.weights.name)
        return ResolvedModel(model.name, path, model.sampling, read_header(path))

    def weights_path(self, name: str) -> Path:
        return self.directory / name

    def weights_name(self, form: str) -> str:
        return f"{self._prefix}{form}.gguf"

    def part(self, form: str) -> Path:
        """Where a format is written before it is chosen."""
        return self.directory / f"{self._prefix}{form}.part"

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """One tune or revert of a model at a time; what a killed one left is removed."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.directory / f".{self._prefix}lock")
            with lock.acquire(timeout=0):
                self._remove_parts()
                try:
                    yield
                finally:
                    self._remove_parts()
        except Timeout:
            raise ConfigError("this model is being tuned already; wait for the other run") from None
        except OSError as error:
            raise ModelFileError(
                f"cannot store in {error.filename or self.directory}: {error.strerror or error};"
                " make room or choose another directory with --models-dir"
            ) from None

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.directory).free

    def write(self, profile: Profile, provenance: Provenance | None) -> None:
        """Weights first, then the profile that names them; then what nothing names any more."""
        if profile.weights is not None:
            final = self.weights_path(profile.weights.name)
            _write(_provenance_path(final), provenance)
            part = self.part(profile.weights.format)
            _sync(part)
            part.replace(final)
        _write(self.path, profile)
        self._remove_unnamed_weights()

    def revertible(self) -> list[Path]:
        """Profiles made for this model on this hardware, by any engine version, and broken ones."""
        found = []
        for path in self._profiles():
            try:
                profile = _read(path)
            except (OSError, ValueError):
                found.append(path)
            else:
                if profile.machine.is_same_hardware(self.machine):
                    found.append(path)
        return found

    def revert(self, profiles: list[Path]) -> list[Path]:
        """Remove them and the weights that no other profile names. Returns what was removed."""
        for path in profiles:
            path.unlink(missing_ok=True)
        return [*profiles, *self._remove_unnamed_weights()]

    def unnamed_without(self, profiles: list[Path]) -> list[Path]:
        """The weights that would go with these profiles."""
        kept = {name for path in self._profiles() if path not in profiles for name in _names(path)}
        return [path for path in self._files(".gguf") if path.name not in kept]

    def _usable(self) -> Profile:
        profile = _read(self.path)
        if profile.machine != self.machine:
            raise ValueError("it was made on another machine")
        if profile.source.edges != self.edges:
            raise ValueError("it was made for another file")
        if profile.weights is not None:
            path = self.weights_path(profile.weights.name)
            if read_header(path).size != profile.weights.size:
                raise ValueError(f"{path} is not the file it was made with; run `ingle tune` again")
        return profile

    def _tell_of_others(self, model: str) -> None:
        if self._profiles():
            log.warning(
                "there is a tuned profile, but not for this machine and engine version;"
                " run `ingle tune` here",
                extra={"model": model},
            )

    def _profiles(self) -> list[Path]:
        return self._files(_PROFILE)

    def _files(self, ending: str) -> list[Path]:
        """Not by glob: a model's name may hold brackets."""
        if not self.directory.is_dir():
            return []
        return sorted(
            path
            for path in self.directory.iterdir()
            if path.name.startswith(self._prefix) and path.name.endswith(ending)
        )

    def _remove_parts(self) -> None:
        for path in self._files(".part"):
            path.unlink(missing_ok=True)

    def _remove_unnamed_weights(self) -> list[Path]:
        unnamed = self.unnamed_without([])
        for path in unnamed:
            path.unlink(missing_ok=True)
            _provenance_path(path).unlink(missing_ok=True)
        return unnamed


def _read(path: Path) -> Profile:
    return msgspec.json.decode(path.read_bytes(), type=Profile)


def _names(path: Path) -> list[str]:
    """The weights a profile names; none when it cannot be read."""
    try:
        weights = _read(path).weights
    except (OSError, ValueError):
        return []
    return [weights.name] if weights else []


def _provenance_path(weights: Path) -> Path:
    return weights.with_name(f"{weights.name}.json")


def _write(path: Path, content: object) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
    _sync(part)
    part.replace(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
