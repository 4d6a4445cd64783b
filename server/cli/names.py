"""Names of models, as a shell completes them: what is in the catalogue and in the models directory.

What is wrong is left to the command itself: a shell that completes has nowhere to say it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.catalog import Catalog, ModelStore


def known_models(incomplete: str) -> list[tuple[str, str]]:
    """Each with what it is."""
    from server.core.errors import IngleError

    try:
        from .pull import open_store

        found = dict(_known(*open_store(None, None)))
    except (IngleError, OSError):
        return []
    return [(name, what) for name, what in found.items() if name.startswith(incomplete)]


def present_models(incomplete: str) -> list[tuple[str, str]]:
    """Only those that are in the models directory."""
    return [(name, what) for name, what in known_models(incomplete) if what == "here"]


def _known(catalog: Catalog, store: ModelStore) -> Iterator[tuple[str, str]]:
    for spec in catalog:
        yield spec.name, "here" if store.has(spec) else "to be fetched"
    for path in store.others(catalog):
        yield path.name.removesuffix(".gguf"), "here"
    for model in store.pulled():
        yield model.record.name, "here"
