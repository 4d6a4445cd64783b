"""`ingle config`: the settings that hold here, where each is from, and what a file may say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Config

if TYPE_CHECKING:
    from server.settings import Loaded, Origin, Settings

config = typer.Typer(
    name="config", help="Show the settings, and what they may be.", no_args_is_help=True
)
_HIDDEN = "***"
_BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum"}
"""How pydantic names them where something else looks at a value first."""


@config.command("show")
def show_config(
    origin: Annotated[
        bool, typer.Option("--origin", help="Say of each value where it is from.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Show the settings that `ingle serve` would have here, as a settings file.

    Keys are not shown.
    """
    from server.settings import read_settings

    loaded = read_settings({}, config)
    values = settings_values(loaded.settings)
    if as_json:
        typer.echo(json.dumps(_with_origins(values, loaded) if origin else values, indent=2))
        return
    for line in _lines(values, loaded.origins if origin else None):
        typer.echo(line)


@config.command("schema")
def show_schema() -> None:
    """Print the JSON Schema of the settings file, for editors and checks."""
    typer.echo(json.dumps(schema(), indent=2))


@config.command("path")
def show_path(config: Config = None) -> None:
    """Print the settings file that is read. Without one exit with 1, and say where it may be."""
    from server.settings import read_settings, settings_files

    file = read_settings({}, config).file
    if file is not None:
        typer.echo(file.absolute())
        return
    typer.echo("there is no settings file; the first of these is read:", err=True)
    for path in settings_files():
        typer.echo(f"  {path.absolute()}", err=True)
    raise typer.Exit(1)


def schema() -> dict[str, Any]:
    from server.settings import Settings

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_tidied(Settings.model_json_schema()),
        "title": "Settings of Ingle",
        "description": "A settings file (TOML). Every key may be left out.",
    }


def _tidied(told: dict[str, Any]) -> dict[str, Any]:
    """Bounds under their JSON Schema names, and nothing of null, which TOML has not."""
    tidy: dict[str, Any] = {}
    for key, value in told.items():
        if key in ("properties", "$defs"):
            tidy[key] = {name: _tidied(one) for name, one in value.items()}
        elif key == "anyOf":
            kinds = [_tidied(one) for one in value if one != {"type": "null"}]
            tidy |= kinds[0] if len(kinds) == 1 else {key: kinds}
        elif isinstance(value, dict) and key != "default":
            tidy[key] = _tidied(value)
        elif key != "title" and value is not None:
            tidy[_BOUNDS.get(key, key)] = _plain(value)
    return tidy


def settings_values(settings: Settings) -> dict[str, Any]:
    """By key, as a file would have them; None for what is not set."""
    from server.settings import SECRET_KEYS

    told = settings.model_dump()
    tables = {
        name: options.model_dump(exclude_defaults=True) for name, options in settings.model.items()
    }
    told["model"] = tables
    told |= {key: _HIDDEN if told[key] else None for key in SECRET_KEYS}
    return {key: _plain(value) for key, value in told.items()}


def _plain(value: Any) -> Any:
    """For ever is -1, in a file and in JSON."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return -1 if value == float("inf") else value
    return str(value)


def _with_origins(values: dict[str, Any], loaded: Loaded) -> dict[str, Any]:
    return {key: {"value": value, **loaded.origins[key]._asdict()} for key, value in values.items()}


def _lines(values: dict[str, Any], origins: dict[str, Origin] | None) -> list[str]:
    """TOML that can be read again; what is hidden or not set stands in comments."""
    shown = [(key, _line(key, value)) for key, value in values.items() if key != "model"]
    tables = [
        ("model", f"model.{_word(name)} = {_toml(options)}")
        for name, options in values["model"].items()
    ]
    lines = shown + tables
    if origins is None:
        return [line for _, line in lines]
    width = max(len(line) for _, line in lines if len(line) < 50)
    return [f"{line:<{width}}  # {_from(origins[key])}" for key, line in lines]


def _line(key: str, value: Any) -> str:
    if value is None:
        return f"# {key} is not set"
    return f"{'# ' if value == _HIDDEN else ''}{key} = {_toml(value)}"


def _from(origin: Origin) -> str:
    return origin.place or origin.kind


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_word(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _word(key: str) -> str:
    from re import fullmatch

    return key if fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
