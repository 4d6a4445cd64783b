"""Which files of a repository are the model that is asked for. Paths in, paths out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.core.errors import ConfigError

from .reference import HubReference

USUAL = ("Q4_K_M", "Q8_0")
"""What is taken, in this order, where no quantisation is asked for; as `llama-server -hf` does."""

_COMPANIONS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
"""Files that go beside a model and are none."""
_SPLIT = re.compile(r"^(.+)-(\d{5})-of-(\d{5})\.gguf$")
_QUANT = re.compile(r"[-._]((?:I?Q|TQ|I|MXFP|NVFP|B?F|FP)\d+(?:_\w+)?)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Choice:
    """`files` in order: one, or all parts of a split model. `name` is what clients call it."""

    name: str
    files: tuple[str, ...]


def choose(paths: Iterable[str], reference: HubReference) -> Choice:
    """The model that `reference` means. Raises ConfigError, naming what there is instead."""
    models = sorted(path for path in paths if _is_model(path))
    first = _first(models, reference)
    if first is None:
        raise ConfigError(_nothing(models, reference))
    parts = _parts(models, first, reference)
    return Choice(_name(models, reference.repo, parts[0]), parts)


def holds(paths: Iterable[str], reference: HubReference) -> bool:
    """Whether the model is among them for sure: what is not asked for must be the usual one."""
    models = sorted(path for path in paths if _is_model(path))
    if reference.file is None and reference.quant is None:
        return _with_quant(models, USUAL[0]) is not None
    return _first(models, reference) is not None


def split_parts(name: str) -> list[str]:
    """The names of all parts of the split model that the file `name` begins, or `name` alone."""
    split = _SPLIT.match(name)
    if split is None:
        return [name]
    count = min(int(split[3]), 1000)
    return [f"{split[1]}-{part:05}-of-{split[3]}.gguf" for part in range(1, count + 1)]


def is_first(path: str) -> bool:
    """Whether a model begins with this file: no companion, no later part."""
    split = _SPLIT.match(path)
    return _is_model(path) and (split is None or int(split[2]) == 1)


def quants(paths: Iterable[str]) -> list[str]:
    """The quantisations among the models, each once."""
    found = (_quant(path) for path in sorted(paths) if is_first(path))
    return list(dict.fromkeys(quant for quant in found if quant))


def _is_model(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name.endswith(".gguf") and not any(word in name.lower() for word in _COMPANIONS)


def _first(models: Sequence[str], reference: HubReference) -> str | None:
    if reference.file is not None:
        return reference.file if reference.file in models else None
    if reference.quant is not None:
        return _with_quant(models, reference.quant)
    usual = (_with_quant(models, quant) for quant in USUAL)
    return next((path for path in usual if path), None) or next(filter(is_first, models), None)


def _with_quant(models: Sequence[str], quant: str) -> str | None:
    pattern = re.compile(rf"(?:^|[-._/]){re.escape(quant)}[.-]", re.IGNORECASE)
    return next((path for path in models if is_first(path) and pattern.search(path)), None)


def _stem(path: str) -> str:
    split = _SPLIT.match(path)
    return split[1] if split else path.removesuffix(".gguf")


def _quant(path: str) -> str | None:
    found = _QUANT.search(_stem(path))
    return found[1].upper() if found else None


def _name(models: Sequence[str], repo: str, first: str) -> str:
    quant = _quant(first)
    if quant is not None and _with_quant(models, quant) == first:
        return f"{repo}:{quant}"
    return f"{repo}:{_stem(first)}"


def _parts(models: Sequence[str], first: str, reference: HubReference) -> tuple[str, ...]:
    folder, slash, name = first.rpartition("/")
    parts = [f"{folder}{slash}{part}" for part in split_parts(name)]
    missing = [part for part in parts if part not in models]
    if missing:
        raise ConfigError(
            f"{reference} is incomplete: {missing[0]} is missing from {reference.repo}; "
            "pick another quantisation or repository"
        )
    return tuple(parts)


def _nothing(models: Sequence[str], reference: HubReference) -> str:
    known = quants(models)
    if reference.file is None and known:
        return f"{reference.repo} has no {reference.quant}; it has {', '.join(known)}"
    firsts = [path for path in models if is_first(path)]
    if firsts:
        return f"{reference.repo} does not hold what {reference} names; it has {', '.join(firsts)}"
    return (
        f"{reference.repo} holds no GGUF model; look for a repository whose name ends in GGUF "
        "on Hugging Face"
    )
