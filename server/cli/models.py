"""`ingle pull` and `ingle list`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Config, ModelsDir

if TYPE_CHECKING:
    from server.catalog import Catalog, ModelSpec, ModelStore


def pull(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Catalogue names, see `ingle list`.")
    ],
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """Fetch models; a model that is already here costs nothing."""
    catalog, store = _open(models_dir, config)
    for spec in [_spec(name, catalog) for name in models]:
        if store.has(spec):
            typer.echo(f"{spec.name} is already here: {store.path(spec)}")
        else:
            fetch(spec, store)


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """List the models known by name and the other .gguf files in the models directory."""
    import json

    catalog, store = _open(models_dir, config)
    rows = [_known(spec, store) for spec in catalog]
    rows += [_other(path) for path in store.others(catalog)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        _print_table(rows)


def fetch(spec: ModelSpec, store: ModelStore) -> None:
    """Pull one model and say so on stderr."""
    from server.catalog.pull import pull as pull_model

    from .progress import show_progress
    from .units import in_bytes

    about = "" if spec.verified else "about "
    typer.echo(f"fetching {spec.name} ({about}{in_bytes(spec.size)}, {spec.licence})", err=True)
    with show_progress(spec.name) as report:
        path = pull_model(spec, store, report)
    typer.echo(f"{spec.name} is here: {path}", err=True)


def _open(models_dir: Path | None, config: Path | None) -> tuple[Catalog, ModelStore]:
    from server.catalog import ModelStore, load_catalog
    from server.settings import load_settings

    settings = load_settings({"models_dir": models_dir}, config)
    return load_catalog(), ModelStore(settings.models_dir)


def _spec(name: str, catalog: Catalog) -> ModelSpec:
    from server.catalog.resolve import unknown_model

    spec = catalog.find(name)
    if spec is None:
        raise unknown_model(name, catalog)
    return spec


def _known(spec: ModelSpec, store: ModelStore) -> dict[str, Any]:
    present = store.has(spec)
    return {
        "name": spec.name,
        "aliases": spec.aliases,
        "present": present,
        "path": str(store.path(spec)) if present else None,
        "size": spec.size,
        "quantisation": spec.quantisation,
        "parameters": spec.parameters,
        "context": spec.context,
        "licence": spec.licence,
        "verified": spec.verified,
        "source": spec.source,
        "problem": None,
    }


def _other(path: Path) -> dict[str, Any]:
    """A file put there by hand: what its header says, or what is wrong with it."""
    from server.catalog import read_header
    from server.core.errors import ModelFileError

    row: dict[str, Any] = {
        "name": path.stem,
        "aliases": (),
        "present": True,
        "path": str(path),
        "size": path.stat().st_size,
        "quantisation": None,
        "parameters": None,
        "context": None,
        "licence": None,
        "verified": False,
        "source": None,
        "problem": None,
    }
    try:
        header = read_header(path)
    except ModelFileError as error:
        return row | {"problem": error.message}
    return row | {
        "quantisation": header.quantisation,
        "parameters": header.parameters,
        "context": header.context_length,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from .units import in_bytes

    table = Table("NAME", "HERE", "SIZE", "QUANT", "CONTEXT", "LICENCE", "VERIFIED", box=None)
    for row in rows:
        table.add_row(
            row["name"],
            "damaged" if row["problem"] else "yes" if row["present"] else "-",
            in_bytes(row["size"]),
            row["quantisation"] or "?",
            str(row["context"] or "?"),
            row["licence"] or "?",
            "yes" if row["verified"] else "-",
        )
    console = Console()
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    for row in rows:
        if row["problem"]:
            console.print(f"\n{row['problem']}", soft_wrap=True, markup=False)
