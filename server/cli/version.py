"""`ingle version` and `ingle --version`."""

from __future__ import annotations

from typing import Annotated

import typer


def version(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the versions of Ingle, llama-cpp-python and Python."""
    import json
    import platform
    from importlib import metadata

    from server import __version__

    versions = {
        "ingle": __version__,
        "llama-cpp-python": metadata.version("llama-cpp-python"),
        "python": platform.python_version(),
    }
    if as_json:
        typer.echo(json.dumps(versions, indent=2))
        return
    for name, number in versions.items():
        typer.echo(f"{name} {number}")


def _version_and_exit(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


def show_version(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version_and_exit, is_eager=True, help="Show the versions."
        ),
    ] = False,
) -> None:
    pass
