"""What is known of a model, present or not: one dictionary, for tables and for JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from server.catalog import Catalog, Elsewhere, ModelSpec, ModelStore, Target
    from server.catalog.elsewhere import Found
    from server.catalog.store import PulledModel

OURS = "ingle"


def everything(catalog: Catalog, store: ModelStore, elsewhere: Elsewhere) -> list[dict[str, Any]]:
    return [facts(target) for target in all_targets(catalog, store, elsewhere)]


def all_targets(catalog: Catalog, store: ModelStore, elsewhere: Elsewhere) -> list[Target]:
    """The catalogue, then what else is in the models directory, then what other programs have."""
    from server.catalog import locate
    from server.catalog.resolve import file_target, found_target, pulled_target

    targets = [locate([spec.name], catalog, store, elsewhere)[0] for spec in catalog]
    targets += [file_target(path) for path in store.others(catalog)]
    targets += [pulled_target(model) for model in store.pulled()]
    shown = {target.path for target in targets}
    found = [found_target(model) for model in elsewhere.all()]
    return [*targets, *(target for target in found if target.path not in shown)]


def facts(target: Target) -> dict[str, Any]:
    """`size` in bytes, `context` in tokens. `problem` says what is wrong with a file."""
    row: dict[str, Any] = {
        "name": target.name,
        "aliases": (),
        "present": target.missing is None,
        "where": None,
        "path": None,
        "kind": None,
        "size": None,
        "architecture": None,
        "parameters": None,
        "quantisation": None,
        "context": None,
        "chat_template": None,
        "licence": None,
        "verified": False,
        "source": None,
        "reference": None,
        "sha256": None,
        "problem": None,
    }
    if target.spec:
        row |= _of_spec(target.spec)
    if target.pulled:
        row |= _of_pulled(target.pulled)
    if target.found:
        row |= _of_found(target.found)
    if row["present"]:
        row |= {"where": row["where"] or OURS, "path": str(target.path)} | _of_header(target.path)
    return row


def _of_spec(spec: ModelSpec) -> dict[str, Any]:
    return {
        "aliases": spec.aliases,
        "kind": spec.kind,
        "size": spec.size,
        "parameters": spec.parameters,
        "quantisation": spec.quantisation,
        "context": spec.context,
        "licence": spec.licence,
        "verified": spec.verified,
        "source": spec.source,
        "sha256": spec.sha256,
    }


def _of_pulled(model: PulledModel) -> dict[str, Any]:
    record = model.record
    return {
        "size": model.size,
        "licence": record.licence,
        "source": record.source,
        "reference": record.reference,
        "sha256": record.files[0].sha256 if len(record.files) == 1 else None,
    }


def _of_found(found: Found) -> dict[str, Any]:
    return {"where": found.owner, "reference": found.reference, "sha256": found.sha256}


def _of_header(path: Path) -> dict[str, Any]:
    from server.catalog.split import read_model
    from server.core.errors import ModelFileError

    try:
        header = read_model(path)
    except ModelFileError as error:
        return {"size": path.stat().st_size if path.is_file() else 0, "problem": error.message}
    return {
        "kind": header.kind,
        "size": header.size,
        "architecture": header.architecture,
        "parameters": header.parameters,
        "quantisation": header.quantisation,
        "context": header.context_length,
        "chat_template": header.chat_template,
    }
