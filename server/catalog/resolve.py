"""From a MODEL argument to a checked file that an engine can load."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from server.core.errors import ConfigError, ModelFileError

from .elsewhere import Elsewhere, Found
from .gguf import GGUFHeader
from .quants import choose, holds
from .reference import (
    HubReference,
    OllamaReference,
    Reference,
    UrlReference,
    is_repository,
    parse_reference,
)
from .spec import Catalog, ModelSpec
from .split import read_model
from .store import ModelStore, PulledModel

_HUB_FILE = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/[^/]+/(.+\.gguf)")

Missing = ModelSpec | HubReference | UrlReference


@dataclass(frozen=True, slots=True)
class Target:
    """What a MODEL argument means. `spec` is there for a catalogue model.

    `missing` is what has to be pulled first. What `name` and `path` will be is certain then for
    catalogue models alone. `pulled` or `found` say whose file it is otherwise.
    """

    name: str
    path: Path
    spec: ModelSpec | None = None
    missing: Missing | None = None
    pulled: PulledModel | None = None
    found: Found | None = None


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model file that is there and sound. `name` is what clients ask for.

    `sampling` holds the recommended values, by the names of SamplingParams.
    """

    name: str
    path: Path
    sampling: dict[str, float]
    header: GGUFHeader


def locate(
    words: Sequence[str], catalog: Catalog, store: ModelStore, elsewhere: Elsewhere | None = None
) -> list[Target]:
    """Every MODEL argument in order. Raises ConfigError for an unknown or an ambiguous one."""
    others = elsewhere or Elsewhere()
    targets = [_locate(word, catalog, store, others) for word in words]
    check_distinct(targets)
    return targets


def check_distinct(targets: Sequence[Target]) -> None:
    """Raises ConfigError when two models have one name, or one is given twice."""
    seen: dict[str, Target] = {}
    for target in targets:
        other = seen.setdefault(target.name, target)
        if other is not target:
            raise ConfigError(_ambiguous(other, target))


def inspect(target: Target) -> ResolvedModel:
    """Check the file. Raises ModelFileError."""
    if target.missing is not None and target.spec is None:
        raise ModelFileError(f"{target.name} is not here; fetch it with `ingle pull {target.name}`")
    header = read_model(target.path)
    sampling = dict(target.spec.sampling) if target.spec else {}
    return ResolvedModel(target.name, target.path, sampling, header)


def pulled_target(model: PulledModel) -> Target:
    return Target(model.record.name, model.path, pulled=model)


def unknown_model(word: str, catalog: Catalog) -> ConfigError:
    close = catalog.close_to(word)
    if is_repository(word.partition(":")[0]):
        close = [f"hf:{word}"]
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    names = ", ".join(spec.name for spec in catalog)
    return ConfigError(
        f"unknown model {word}: {hint}Give the path of a .gguf file, hf:ORG/REPO of Hugging Face, "
        f"or one of {names}"
    )


def _locate(word: str, catalog: Catalog, store: ModelStore, elsewhere: Elsewhere) -> Target:
    reference = parse_reference(word)
    if reference is not None:
        return _referred(reference, store, elsewhere)
    path = Path(word).expanduser()
    if path.is_file() and ("/" in word or word.endswith(".gguf")):
        return file_target(path)
    spec = catalog.find(word)
    if spec is not None:
        return _known(spec, store, elsewhere)
    stored = store.named(word)
    if stored is not None:
        return file_target(stored)
    return _by_name(word, path, catalog, store, elsewhere)


def _by_name(
    word: str, path: Path, catalog: Catalog, store: ModelStore, elsewhere: Elsewhere
) -> Target:
    """By what `ingle list` calls it."""
    pulled = store.pulled_as(word)
    if pulled is not None:
        return pulled_target(pulled)
    found = elsewhere.named(word)
    if found is not None:
        return found_target(found)
    if word.endswith(".gguf") or (word.startswith((".", "/", "~")) and "/" in word):
        return file_target(path)
    if "/" in word and not is_repository(word.partition(":")[0]):
        return file_target(path)
    raise unknown_model(word, catalog)


def _known(spec: ModelSpec, store: ModelStore, elsewhere: Elsewhere) -> Target:
    """A catalogue model that another program has fetched is not fetched again."""
    path = store.path(spec)
    if store.has(spec):
        return Target(spec.name, path, spec)
    source = _HUB_FILE.fullmatch(spec.source)
    found = elsewhere.find(HubReference(source[1], file=source[2])) if source else None
    if found is not None and not (spec.verified and found.path.stat().st_size != spec.size):
        return Target(spec.name, found.path.absolute(), spec, found=found)
    return Target(spec.name, path, spec, missing=spec)


def _referred(reference: Reference, store: ModelStore, elsewhere: Elsewhere) -> Target:
    pulled = None if isinstance(reference, OllamaReference) else _pulled(reference, store)
    if pulled is not None:
        return pulled_target(pulled)
    if isinstance(reference, UrlReference):
        return Target(str(reference), store.place(reference) / reference.file, missing=reference)
    found = elsewhere.find(reference)
    if found is not None:
        return found_target(found)
    if isinstance(reference, OllamaReference):
        raise ConfigError(
            f"Ollama has no {reference.name} on this machine; fetch it with "
            f"`ollama pull {reference.name}`, or see `ingle list`"
        )
    return Target(str(reference), store.place(reference), missing=reference)


def _pulled(reference: HubReference | UrlReference, store: ModelStore) -> PulledModel | None:
    models = store.pulled(store.place(reference))
    if isinstance(reference, UrlReference):
        sums = (None, *(file.sha256 for model in models for file in model.record.files[:1]))
        return models[0] if models and reference.sha256 in sums else None
    for model in models:
        if model.record.reference == str(reference):
            return model
    paths = {stored: model for model in models for stored in _repository_paths(model)}
    if not holds(paths, reference):
        return None
    return paths[choose(paths, reference).files[0]]


def _repository_paths(model: PulledModel) -> list[str]:
    folder, slash, _ = model.record.path.rpartition("/")
    return [f"{folder}{slash}{stored.file}" for stored in model.record.files]


def found_target(found: Found) -> Target:
    return Target(found.name, found.path.absolute(), found=found)


def file_target(path: Path) -> Target:
    absolute = path.absolute()
    return Target(path.name.removesuffix(".gguf"), absolute)


def _ambiguous(first: Target, second: Target) -> str:
    if first.path == second.path:
        return f"the model {first.name} is given twice; name it once"
    return f"two models are called {first.name}: {first.path} and {second.path}; rename one file"
