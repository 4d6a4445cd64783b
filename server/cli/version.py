"""`ingle version` and `ingle --version`."""

from __future__ import annotations

from typing import Annotated

import typer


def version() -> None:
    """Show the versions of Ingle, llama-cpp-python and Python."""
    import platform
    from importlib import metadata

    from server import __version__

    typer.echo(f"ingle {__version__}")
    typer.echo(f"llama-cpp-python {metadata.version('llama-cpp-python')}")
    typer.echo(f"python {platform.python_version()}")


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
