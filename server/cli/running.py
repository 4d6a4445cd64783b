"""`ingle ps`, `load`, `stop` and `reload`: a server that runs, seen and steered."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from .options import Config
from .remote import Url, open_remote

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, as `ingle ps` shows.")]


def ps(as_json: Json = False, url: Url = None, config: Config = None) -> None:
    """Show the models of a server that runs: state, memory, requests, when they leave memory."""
    with open_remote(url, config) as server:
        models = server.get("/admin/models")
    if as_json:
        typer.echo(json.dumps(models, indent=2))
        return
    from .tables import print_table
    from .units import in_bytes

    titles = ("NAME", "STATUS", "MEMORY", "SLOTS", "REQUESTS", "WAITING", "UNTIL")
    print_table(titles, [_cells(model) for model in models["data"]])
    memory = models["memory"]
    used, budget = in_bytes(memory["used_bytes"]), in_bytes(memory["budget_bytes"])
    typer.echo(f"\n{used} of {budget} are taken")


def load(
    model: Model,
    keep_alive: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long it stays unused: seconds, 10m; -1: for ever."),
    ] = None,
    as_json: Json = False,
    url: Url = None,
    config: Config = None,
) -> None:
    """Load a model of a server that runs into memory."""
    body = {"model": model} | ({"keep_alive": keep_alive} if keep_alive else {})
    with open_remote(url, config) as server:
        told = server.post("/admin/models/load", body)
    _tell(told, f"{told['id']} is in memory", as_json)


def stop(model: Model, as_json: Json = False, url: Url = None, config: Config = None) -> None:
    """Take a model of a server that runs out of memory, once its requests have ended.

    It is loaded again when it is asked for.
    """
    with open_remote(url, config) as server:
        told = server.post("/admin/models/unload", {"model": model})
    _tell(told, f"{told['id']} is out of memory", as_json)


def reload(as_json: Json = False, url: Url = None, config: Config = None) -> None:
    """Have a server that runs read its configuration again; no request fails for it."""
    with open_remote(url, config) as server:
        told = server.post("/admin/reload")
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    for title, names in (
        ("changed", told["changed"]),
        ("added", told["added"]),
        ("removed", told["removed"]),
        ("need a restart", told["needs_restart"]),
    ):
        if names:
            typer.echo(f"{title}: {', '.join(names)}")
    if not any(told.values()):
        typer.echo("nothing changed")


def _tell(told: dict[str, Any], line: str, as_json: bool) -> None:
    typer.echo(json.dumps(told, indent=2) if as_json else line)


def _cells(model: dict[str, Any]) -> tuple[str, ...]:
    from .units import in_bytes

    loaded = model["status"] == "loaded"
    about = "" if model["measured"] else "about "
    slots = f"{model['slots']} × {model['context']}" if loaded and model["slots"] else "-"
    if len(model["replicas"]) > 1:
        slots = f"{len(model['replicas'])} × {slots}"
    return (
        model["id"],
        model["status"],
        about + in_bytes(model["bytes"]),
        slots,
        str(model["requests"]),
        str(model["waiting"]),
        _until(model) if loaded else model["error"] or "-",
    )


def _until(model: dict[str, Any]) -> str:
    from .units import in_time

    if model["pinned"]:
        return "pinned"
    if model["unloads_in_seconds"] is not None:
        return f"in {in_time(model['unloads_in_seconds'])}"
    if model["keep_alive_seconds"] is not None:
        return f"{in_time(model['keep_alive_seconds'])} after its requests"
    return "memory is needed"
