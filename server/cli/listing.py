"""`ingle list`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .options import Config, ModelsDir

_TITLES = ("NAME", "WHERE", "KIND", "SIZE", "QUANT", "CONTEXT", "LICENCE")


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """List the models known by name, those that are here, and those other programs have here.

    Any of them is served by its name. `ls` is the same.
    """
    import json

    from server.catalog import Elsewhere

    from .facts import everything
    from .pull import open_store

    rows = everything(*open_store(models_dir, config), Elsewhere())
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        _print_table(rows)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from .tables import print_table

    print_table(_TITLES, [_cells(row) for row in rows])
    for row in rows:
        if row["problem"]:
            typer.echo(f"\n{row['problem']}")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    from .units import in_bytes

    return (
        row["name"],
        _where(row),
        row["kind"] or "?",
        in_bytes(row["size"]),
        row["quantisation"] or "?",
        str(row["context"] or "?"),
        row["licence"] or "?",
    )


def _where(row: dict[str, Any]) -> str:
    from urllib.parse import urlsplit

    from .facts import OURS

    if row["problem"]:
        return "damaged"
    if row["where"] != OURS:
        return row["where"] or "-"
    reference = row["reference"] or ""
    return f"here, from {urlsplit(reference).hostname}" if "://" in reference else "here"
