"""Where files are, by the XDG rules."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path


def default_models_dir(environ: Mapping[str, str] = os.environ) -> Path:
    return _xdg(environ, "XDG_DATA_HOME", ".local/share") / "ingle" / "models"


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """What is kept of use, such as a history: not settings, not worth a backup."""
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / "ingle"


def default_cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    return _xdg(environ, "XDG_CACHE_HOME", ".cache") / "ingle" / "prefixes"


def settings_files(environ: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """The first that exists is read, where none is named."""
    yield Path("ingle.toml")
    yield _xdg(environ, "XDG_CONFIG_HOME", ".config") / "ingle" / "config.toml"
    yield Path("/etc/ingle/config.toml")


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    """A relative path is as good as none."""
    value = Path(environ.get(variable, ""))
    return value if value.is_absolute() else Path(environ.get("HOME") or Path.home()) / fallback
