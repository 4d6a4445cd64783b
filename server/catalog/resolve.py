"""From a MODEL argument to a checked file that an engine can load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from server.core.errors import ConfigError

from .gguf import GGUFHeader, read_header
from .spec import Catalog, ModelSpec
from .store import ModelStore


@dataclass(frozen=True, slots=True)
class Target:
    """What a MODEL argument means. The file may still have to be pulled when there is a `spec`."""

    name: str
    path: Path
    spec: ModelSpec | None = None


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model file that is there and sound. `name` is what clients ask for.

    `sampling` holds the recommended values, by the names of SamplingParams.
    """

    name: str
    path: Path
    sampling: dict[str, float]
    header: GGUFHeader


def locate(words: Sequence[str], catalog: Catalog, store: ModelStore) -> list[Target]:
    """Every MODEL argument in order. Raises ConfigError for an unknown or an ambiguous one."""
    targets = [_locate(word, catalog, store) for word in words]
    seen: dict[str, Target] = {}
    for target in targets:
        other = seen.setdefault(target.name, target)
        if other is not target:
            raise ConfigError(_ambiguous(other, target))
    return targets


def inspect(target: Target) -> ResolvedModel:
    """Check the file. Raises ModelFileError."""
    header = read_header(target.path)
    sampling = dict(target.spec.sampling) if target.spec else {}
    return ResolvedModel(target.name, target.path, sampling, header)


def unknown_model(word: str, catalog: Catalog) -> ConfigError:
    close = catalog.close_to(word)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    names = ", ".join(spec.name for spec in catalog)
    return ConfigError(
        f"unknown model {word}: {hint}Give the path of a .gguf file, or one of {names}"
    )


def _locate(word: str, catalog: Catalog, store: ModelStore) -> Target:
    path = Path(word).expanduser()
    if "/" in word or (word.endswith(".gguf") and path.exists()):
        return _file(path)
    spec = catalog.find(word)
    if spec is not None:
        return Target(spec.name, store.path(spec), spec)
    stored = store.named(word)
    if stored is not None:
        return _file(stored)
    if word.endswith(".gguf"):
        return _file(path)
    raise unknown_model(word, catalog)


def _file(path: Path) -> Target:
    absolute = path.absolute()
    return Target(path.name.removesuffix(".gguf"), absolute)


def _ambiguous(first: Target, second: Target) -> str:
    if first.path == second.path:
        return f"the model {first.name} is given twice; name it once"
    return f"two models are called {first.name}: {first.path} and {second.path}; rename one file"
