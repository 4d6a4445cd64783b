"""`ingle show`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from .names import known_models
from .options import Config, ModelsDir


def show(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=known_models,
            help="A name, a path or a reference.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """Show what is known of a model: where it is, what it is, where it came from."""
    import json

    from server.catalog import inspect, locate
    from server.core.errors import ModelFileError

    from .facts import facts
    from .pull import open_store

    (target,) = locate([model], *open_store(models_dir, config))
    if not (target.spec or target.path.is_file()):
        inspect(target)
    known = facts(target)
    if as_json:
        typer.echo(json.dumps(known, indent=2))
        return
    for name, value in _lines(known):
        typer.echo(f"{name:14}{value}")
    if known["problem"]:
        raise ModelFileError(known["problem"])


def _lines(known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from .facts import OURS
    from .units import in_bytes

    where = known["where"]
    about = "" if known["present"] else ", not here: `ingle pull` fetches it"
    shown = {
        "name": f"{known['name']}{about}",
        "also": ", ".join(known["aliases"]),
        "kind": known["kind"],
        "architecture": known["architecture"],
        "parameters": known["parameters"] and _in_count(known["parameters"]),
        "quantisation": known["quantisation"],
        "context": known["context"] and f"{known['context']} tokens",
        "template": {True: "yes", False: "none, it completes text"}.get(known["chat_template"]),
        "size": known["size"] and in_bytes(known["size"]),
        "licence": known["licence"],
        "path": known["path"],
        "kept by": where if where != OURS else None,
        "reference": known["reference"],
        "source": known["source"],
        "sha256": known["sha256"],
    }
    for name, value in shown.items():
        if value:
            yield name, str(value)


def _in_count(count: int) -> str:
    return f"{count / 1e9:.3g} billion" if count >= 999.5e6 else f"{count / 1e6:.3g} million"
