"""What the operator decides: flag, then INGLE_* variable, then TOML file, then default."""

from .fields import (
    DEFAULT_MODEL,
    FAULTS_VARIABLE,
    SECRET_KEYS,
    ModelOptions,
    Settings,
    sendable,
)
from .layers import URL_VARIABLE, Loaded, Origin, load_settings, read_settings
from .places import default_models_dir, settings_files, state_dir

__all__ = [
    "DEFAULT_MODEL",
    "FAULTS_VARIABLE",
    "SECRET_KEYS",
    "URL_VARIABLE",
    "Loaded",
    "ModelOptions",
    "Origin",
    "Settings",
    "default_models_dir",
    "load_settings",
    "read_settings",
    "sendable",
    "settings_files",
    "state_dir",
]
