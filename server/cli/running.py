"""`ingle ps`, `load`, `stop`, `cancel` and `reload`: a server that runs, seen and steered."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from .names import known_models
from .options import Config
from .remote import AdminKey, Refused, Remote, Url, administered

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", autocompletion=known_models, help="A name that `ingle ps` shows."
    ),
]


def ps(
    requests: Annotated[
        bool, typer.Option("--requests", "-r", help="Show the requests inside instead.")
    ] = False,
    as_json: Json = False,
    url: Url = None,
    admin_key: AdminKey = None,
    config: Config = None,
) -> None:
    """Show the models of the server that runs: their state, memory, requests, time to stay."""
    with administered(url, admin_key, config) as server:
        told = server.get("/admin/requests" if requests else "/admin/models")
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    elif requests:
        _print_requests(told["data"])
    else:
        _print_models(told)


def load(
    model: Model,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="How long it may go unused: seconds, 10m, 1h, or -1 for ever."
        ),
    ] = None,
    as_json: Json = False,
    url: Url = None,
    admin_key: AdminKey = None,
    config: Config = None,
) -> None:
    """Load a model of the server that runs into memory."""
    body = {"model": model} | ({"keep_alive": keep_alive} if keep_alive else {})
    with administered(url, admin_key, config) as server:
        told = _of_model(server, "/admin/models/load", body)
    _tell(told, f"{told['id']} is loaded", as_json)


def stop(
    model: Model,
    as_json: Json = False,
    url: Url = None,
    admin_key: AdminKey = None,
    config: Config = None,
) -> None:
    """Take a model of the server that runs out of memory, once its requests have ended.

    It is loaded again when it is asked for.
    """
    with administered(url, admin_key, config) as server:
        told = _of_model(server, "/admin/models/unload", {"model": model})
    _tell(told, f"{told['id']} is out of memory", as_json)


def cancel(
    request: Annotated[
        str, typer.Argument(metavar="REQUEST", help="An id that `ingle ps --requests` shows.")
    ],
    as_json: Json = False,
    url: Url = None,
    admin_key: AdminKey = None,
    config: Config = None,
) -> None:
    """End a request that is inside the server that runs; its client is told."""
    from urllib.parse import quote

    with administered(url, admin_key, config) as server:
        told = server.delete(f"/admin/requests/{quote(request, safe='')}")
    _tell(told, f"{told['id']} is cancelled", as_json)


def reload(
    as_json: Json = False, url: Url = None, admin_key: AdminKey = None, config: Config = None
) -> None:
    """Have the server that runs read its settings again; no request fails for it."""
    with administered(url, admin_key, config) as server:
        told = server.post("/admin/reload", {})
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    for key, title in (
        ("changed", "changed"),
        ("added", "added"),
        ("removed", "removed"),
        ("needs_restart", "changed, and wants a restart"),
    ):
        if told.get(key):
            typer.echo(f"{title}: {', '.join(told[key])}")
    if not any(told.values()):
        typer.echo("nothing has changed")


def _of_model(server: Remote, path: str, body: dict[str, str]) -> Any:
    """Says which models there are when this one is unknown."""
    try:
        return server.post(path, body)
    except Refused as error:
        if error.error_code != "model_not_found":
            raise
    from server.core.errors import ConfigError

    from .words import did_you_mean

    model, names = body["model"], [entry["id"] for entry in server.get("/admin/models")["data"]]
    raise ConfigError(f"the server has no model {model}{did_you_mean(model, names)}")


def _print_models(told: Any) -> None:
    from .tables import print_table
    from .units import in_bytes

    titles = ("NAME", "STATUS", "SIZE", "REQUESTS", "SLOTS × CONTEXT", "UNLOADS")
    print_table(titles, [_model_cells(model) for model in told["data"]])
    used, budget = (in_bytes(told["memory"][f"{key}_bytes"]) for key in ("used", "budget"))
    typer.echo(f"\n{used} of {budget} are taken")
    for model in told["data"]:
        if model["error"]:
            typer.echo(f"{model['id']}: {model['error']}")


def _model_cells(model: dict[str, Any]) -> tuple[str, ...]:
    from .units import in_bytes

    shape = "-"
    if model["status"] == "loaded" and model["slots"]:
        shape = f"{model['slots']} × {model['context']}"
        if len(model["replicas"]) > 1:
            shape = f"{len(model['replicas'])} × ({shape})"
    waiting = f", {model['waiting']} waiting" if model["waiting"] else ""
    return (
        model["id"],
        model["status"],
        f"{'' if model['measured'] else 'about '}{in_bytes(model['bytes'])}",
        f"{model['requests']}{waiting}",
        shape,
        _unloads(model),
    )


def _unloads(model: dict[str, Any]) -> str:
    from .units import in_time

    if model["status"] != "loaded":
        return "-"
    if model["pinned"]:
        return "never"
    if model["unloads_in_seconds"] is not None:
        return f"in {in_time(model['unloads_in_seconds'])}"
    if model["keep_alive_seconds"] is not None:
        return f"{in_time(model['keep_alive_seconds'])} after its last request"
    return "when others need the memory"


def _print_requests(requests: list[dict[str, Any]]) -> None:
    from .tables import print_table
    from .units import in_time

    titles = ("REQUEST", "MODEL", "STATUS", "FOR", "PROMPT", "ANSWER", "CLIENT", "PATH")
    print_table(
        titles,
        [
            (
                one["id"],
                one["model"] or "-",
                one["status"],
                in_time(one["seconds"]),
                "-" if one["prompt_tokens"] is None else f"{one['prompt_tokens']} tokens",
                f"{one['completion_tokens']} tokens",
                one["client"] or "-",
                one["path"],
            )
            for one in requests
        ],
    )


def _tell(told: Any, line: str, as_json: bool) -> None:
    typer.echo(json.dumps(told, indent=2) if as_json else line)
