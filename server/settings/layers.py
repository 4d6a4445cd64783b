"""Where settings come from, and what is said of those that are wrong."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from server.core.errors import ConfigError

from .fields import FAULTS_VARIABLE, SECRET_KEYS, ModelOptions, Settings
from .places import default_cache_dir, default_models_dir, settings_files

PREFIX = "INGLE_"
CONFIG_VARIABLE = "INGLE_CONFIG"
URL_VARIABLE = "INGLE_URL"
"""Where the server is that commands of the terminal ask."""

_SERVICE_LINK = re.compile(r"INGLE_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)\w*)")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


class Origin(NamedTuple):
    """`place` is the flag, the variable or the file; empty for a default."""

    kind: Literal["flag", "variable", "file", "default"]
    place: str = ""


class Loaded(NamedTuple):
    """`origins` has every setting; `file` is the one that was read, if any."""

    settings: Settings
    origins: dict[str, Origin]
    file: Path | None


@dataclass(frozen=True)
class _Layer:
    """Values from one place."""

    kind: Literal["flag", "variable", "file"]
    values: Mapping[str, object]
    path: Path | None = None

    def origin(self, key: str) -> Origin:
        places = {"flag": _flag(key), "variable": _variable(key), "file": str(self.path)}
        return Origin(self.kind, places[self.kind])

    def spell(self, key: str, shown: str) -> str:
        """A key with its value, as its author wrote it."""
        if self.kind == "flag":
            return f"{_flag(key)} {shown}"
        if self.kind == "variable":
            return f"{_variable(key)}={shown}"
        return f"{key} = {shown} in {self.path}"


def load_settings(
    flags: Mapping[str, object],
    config: Path | None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Merge all places. A flag of None was not given. Raises ConfigError, one line."""
    return read_settings(flags, config, environ).settings


def read_settings(
    flags: Mapping[str, object],
    config: Path | None,
    environ: Mapping[str, str] = os.environ,
) -> Loaded:
    """As `load_settings`, and where each value is from."""
    file = _file(config, environ)
    layers = (
        _Layer("flag", {key: value for key, value in flags.items() if value is not None}),
        _environment(environ),
        file,
    )
    values: dict[str, object] = {
        "models_dir": default_models_dir(environ),
        "cache_dir": default_cache_dir(environ),
    }
    origins = dict.fromkeys(Settings.model_fields, Origin("default"))
    for layer in reversed(layers):
        values.update(layer.values)
        origins.update({key: layer.origin(key) for key in layer.values})
    try:
        settings = Settings(**values)  # type: ignore[arg-type]
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
    else:
        return Loaded(settings, origins, file.path)
    raise ConfigError(_explain(details, layers))


def _environment(environ: Mapping[str, str]) -> _Layer:
    given = {name: value for name, value in environ.items() if _is_ours(name, value)}
    known = {CONFIG_VARIABLE, FAULTS_VARIABLE, URL_VARIABLE, *map(_variable, Settings.model_fields)}
    for name in given:
        if name not in known:
            hint = _did_you_mean(name.removeprefix(PREFIX), Settings.model_fields, _variable)
            raise ConfigError(f"unknown variable {name}{hint}")
    source = EnvSettingsSource(Settings, env_prefix=PREFIX)
    source.env_vars = {name.lower(): value for name, value in given.items()}
    return _Layer("variable", source())


def _is_ours(name: str, value: str) -> bool:
    """Kubernetes names variables after every service, also after one called `ingle…`."""
    if not name.startswith(PREFIX) or not value or _SERVICE_LINK.fullmatch(name):
        return False
    return not (name.endswith("_PORT") and _SERVICE_URL.match(value))


def _file(config: Path | None, environ: Mapping[str, str]) -> _Layer:
    path = _find_file(config, environ)
    values = _read_file(path) if path else {}
    for key in values:
        if key not in Settings.model_fields:
            hint = _did_you_mean(key, Settings.model_fields)
            raise ConfigError(f"unknown key {key} in {path}{hint}")
    return _Layer("file", values, path)


def _find_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = config or (Path(value) if (value := environ.get(CONFIG_VARIABLE)) else None)
    if named is not None:
        if not named.expanduser().is_file():
            raise ConfigError(f"the configuration file {named} does not exist")
        return named.expanduser()
    return next((path for path in settings_files(environ) if path.is_file()), None)


def _read_file(path: Path) -> dict[str, object]:
    try:
        return TomlConfigSettingsSource(Settings, path).toml_data
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def _flag(key: str) -> str:
    return "MODEL" if key == "models" else f"--{key.replace('_', '-')}"


def _variable(key: str) -> str:
    return PREFIX + key.upper()


def _did_you_mean(key: str, known: Iterable[str], spell: Callable[[str], str] = str) -> str:
    """A parenthesis to append, or nothing."""
    word = key.lower().replace("-", "_")
    close = get_close_matches(word, list(known), n=1)
    return f" (did you mean {spell(close[0])}?)" if close else ""


def _explain(error: ErrorDetails, layers: Iterable[_Layer]) -> str:
    key = str(error["loc"][0])
    if key not in Settings.model_fields:
        return f"unknown setting {key}{_did_you_mean(key, Settings.model_fields)}"
    for layer in layers:
        if key not in layer.values:
            continue
        if key == "model" and len(error["loc"]) > 2:
            return _explain_model(error, layer)
        shown = "***" if key in SECRET_KEYS else _shown(layer.values[key])
        what = Settings.model_fields[key].description
        return f"{layer.spell(key, shown)} is not valid: {key} is {what}"
    return f"{key}: {error['msg']}"


def _explain_model(error: ErrorDetails, layer: _Layer) -> str:
    """A value of one model's own table."""
    _, name, key, *_ = map(str, error["loc"])
    where = f"[model.{json.dumps(name, ensure_ascii=False)}] of {layer.origin('model').place}"
    if key not in ModelOptions.model_fields:
        return f"unknown key {key} in {where}{_did_you_mean(key, ModelOptions.model_fields)}"
    field = Settings.model_fields.get(key)
    what = f"{key} is {field.description}" if field else error["msg"]
    return f"{key} = {_shown(error['input'])} in {where} is not valid: {what}"


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return repr(text) if not text or " " in text else text
