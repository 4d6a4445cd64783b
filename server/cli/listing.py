"""`ingle list`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .options import Config, ModelsDir


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
    from rich.console import Console
    from rich.table import Table

    from .units import in_bytes

    table = Table("NAME", "WHERE", "KIND", "SIZE", "QUANT", "CONTEXT", "LICENCE", box=None)
    for row in rows:
        table.add_row(
            row["name"],
            _where(row),
            row["kind"] or "?",
            in_bytes(row["size"]),
            row["quantisation"] or "?",
            str(row["context"] or "?"),
            row["licence"] or "?",
        )
    console = Console(markup=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    for row in rows:
        if row["problem"]:
            console.print(f"\n{row['problem']}", soft_wrap=True)


def _where(row: dict[str, Any]) -> str:
    from urllib.parse import urlsplit

    from .facts import OURS

    if row["problem"]:
        return "damaged"
    if row["where"] != OURS:
        return row["where"] or "-"
    host = urlsplit(row["source"]).hostname if row["reference"] else None
    return f"here, from {host}" if host else "here"
