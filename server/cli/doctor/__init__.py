"""`ingle doctor`: what fits in this machine, why it is slow, what would keep the server down."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.options import Config, ModelsDir

if TYPE_CHECKING:
    from server.settings import Loaded

    from .finding import Finding
    from .fitting import Fit

_COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """Check this machine and the settings: what fits, what makes answers slow, what is wrong.

    Exits with 1 when something would keep the server from working.
    """
    from .fitting import fits

    logging.getLogger("ingle").addHandler(logging.NullHandler())
    findings, loaded = _settings(models_dir, config)
    areas = {"settings": findings}
    for area, found in _areas(loaded):
        areas.setdefault(area, []).extend(found)
    known = fits(loaded.settings)
    if as_json:
        typer.echo(_json(areas, known))
    else:
        _print(areas, known)
    if any(finding.level == "fail" for found in areas.values() for finding in found):
        raise typer.Exit(1)


def _settings(models_dir: Path | None, config: Path | None) -> tuple[list[Finding], Loaded]:
    """Where they are wrong, the rest is looked at with the defaults."""
    from server.core.errors import ConfigError
    from server.settings import read_settings

    from .finding import ok, refused

    try:
        loaded = read_settings({"models_dir": models_dir}, config)
    except ConfigError as error:
        from server.settings import Loaded, Origin, Settings

        defaults = Settings(models_dir=models_dir) if models_dir else Settings()
        origins = dict.fromkeys(Settings.model_fields, Origin("default"))
        return [refused("settings", error)], Loaded(defaults, origins, None)
    where = f"from {loaded.file}" if loaded.file else "there is no settings file"
    return [ok("settings", f"valid, {where}")], loaded


def _areas(loaded: Loaded) -> Iterator[tuple[str, Iterator[Finding]]]:
    from .engine import engine_findings
    from .fitting import served_findings
    from .machine import machine_findings
    from .places import place_findings

    yield "settings", place_findings(loaded)
    yield "machine", machine_findings(loaded.settings.threads)
    yield "llama.cpp", engine_findings()
    yield "models", served_findings(loaded.settings)


def _json(areas: dict[str, list[Finding]], known: list[Fit]) -> str:
    import msgspec

    told = {
        "findings": [
            {"area": area, **msgspec.to_builtins(finding)}
            for area, found in areas.items()
            for finding in found
        ],
        "models": msgspec.to_builtins(known),
    }
    return json.dumps(told, indent=2, ensure_ascii=False)


def _print(areas: dict[str, list[Finding]], known: list[Fit]) -> None:
    width = max(len(finding.check) for found in areas.values() for finding in found)
    for area, found in areas.items():
        typer.echo(area)
        for finding in found:
            level = typer.style(f"{finding.level:4}", fg=_COLOURS[finding.level])
            typer.echo(f"  {level}  {finding.check:{width}}  {finding.message}")
            if finding.remedy:
                typer.echo(f"  {'':4}  {'':{width}}  → {finding.remedy}")
        typer.echo()
    _print_fits(known)


def _print_fits(known: list[Fit]) -> None:
    from server.cli.tables import print_table

    typer.echo("what fits now, one model at a time")
    print_table(("  NAME", "HERE", "WEIGHTS", "FITS"), [_cells(fit) for fit in known])


def _cells(fit: Fit) -> tuple[str, ...]:
    from server.cli.units import in_bytes

    if not fit.fits:
        how = f"no: it takes {in_bytes(fit.total)}"
    elif fit.slots:
        how = f"{fit.slots} × {fit.context} tokens, {in_bytes(fit.total)} in all"
    else:
        how = f"yes, {in_bytes(fit.total)} and more" if fit.note else f"yes, {in_bytes(fit.total)}"
    return (f"  {fit.name}", "yes" if fit.present else "-", in_bytes(fit.weights), how)
