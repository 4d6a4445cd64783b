"""Where Hugging Face's own tools keep their files and the access token."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from server.core.errors import ConfigError

HUGGING_FACE = "https://huggingface.co"

_TRUE = {"1", "true", "yes", "on"}
_TOKEN = re.compile(r"[!-~]+")


def is_offline(environ: Mapping[str, str]) -> bool:
    return environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE


def hub_token(environ: Mapping[str, str]) -> str | None:
    """HF_TOKEN, else what `hf auth login` has written. Raises ConfigError for what is no token."""
    token = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    if not token.strip():
        named = environ.get("HF_TOKEN_PATH")
        path = Path(named).expanduser() if named else hub_home(environ) / "token"
        try:
            token = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
    token = token.strip()
    if token and not _TOKEN.fullmatch(token):
        raise ConfigError("HF_TOKEN is not a token: it holds spaces or other signs; copy it again")
    return token or None


def hub_home(environ: Mapping[str, str], home: Path | None = None) -> Path:
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]).expanduser()
    if environ.get("XDG_CACHE_HOME"):
        return Path(environ["XDG_CACHE_HOME"]).expanduser() / "huggingface"
    return (home or user_home()) / ".cache" / "huggingface"


def user_home() -> Path:
    """Never fails, not even for a user without an entry in the system's list."""
    return Path(os.path.expanduser("~"))
