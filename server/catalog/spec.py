"""The models known by name: `catalog.toml`, read strictly."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from server.core.errors import ConfigError
from server.core.types import ModelKind

_HERE = Path(__file__).parent
_PLACES = (_HERE / "catalog.toml", _HERE.parents[1] / "models" / "catalog.toml")

_Count = Annotated[int, Meta(gt=0)]


class ModelSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry. `size` in bytes, `context` in tokens; both are hints until `verified`.

    `source` is `pypi:REQUIREMENT!MEMBER` (one file of a wheel) or an https address.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    source: Annotated[str, Meta(pattern=r"^(pypi:[^!]+!.+|https://.+)$")]
    file: Annotated[str, Meta(pattern=r"^[^/]+\.gguf$")]
    size: _Count
    licence: str
    context: _Count
    parameters: _Count
    quantisation: str
    verified: bool
    kind: ModelKind = "generate"
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None = None
    aliases: tuple[str, ...] = ()
    sampling: dict[str, float] = {}


class _CatalogFile(Struct, frozen=True, forbid_unknown_fields=True):
    models: tuple[ModelSpec, ...]


class Catalog:
    """The specs in file order, found by name or alias, whatever the case."""

    def __init__(self, specs: Sequence[ModelSpec]) -> None:
        self._specs = tuple(specs)
        self._by_word = {word: spec for spec in specs for word in (spec.name, *spec.aliases)}

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._specs)

    def find(self, word: str) -> ModelSpec | None:
        return self._by_word.get(word.lower())

    def close_to(self, word: str) -> list[str]:
        """The names that `word` may be a misspelling of, best first."""
        words = get_close_matches(word.lower(), list(self._by_word), n=5, cutoff=0.5)
        return list(dict.fromkeys(self._by_word[close].name for close in words))[:3]


def load_catalog(path: Path | None = None) -> Catalog:
    """The catalogue of the installed package, or of the checkout it runs from."""
    found = path or next((place for place in _PLACES if place.is_file()), None)
    if found is None:
        raise ConfigError("catalog.toml is missing from this installation; install ingle again")
    try:
        raw = tomllib.loads(found.read_text(encoding="utf-8"))
        return Catalog(msgspec.convert(raw, _CatalogFile).models)
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigError(f"{found} is not a valid catalogue: {error}") from None
