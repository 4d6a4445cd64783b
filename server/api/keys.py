"""The API keys of this server. Only their hashes are kept."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from server.core.errors import ConfigError
from server.settings import Settings, sendable


class ApiKeys:
    """False when there are none: then anybody may come in."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._hashes = tuple({_hash(key) for key in keys})

    def change(self, other: ApiKeys) -> None:
        """Those of the other from now on."""
        self._hashes = other._hashes

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def scope(self, given: str) -> str | None:
        """The scope of the holder of this key, None if it is none of ours. In constant time."""
        digest = _hash(given)
        known = [hmac.compare_digest(digest, own) for own in self._hashes]
        return digest.hex()[:16] if any(known) else None


def load_keys(settings: Settings) -> ApiKeys:
    """Raises ConfigError for a key file that cannot be read or has no key."""
    keys = [key.get_secret_value() for key in settings.api_key]
    if settings.api_key_file is not None:
        keys += read_keys(settings.api_key_file)
    return ApiKeys(keys)


def read_keys(path: Path) -> list[str]:
    """One key a line; what follows a # is a comment."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read the key file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the key file {path} holds more than ASCII") from None
    keys = []
    for number, line in enumerate(lines, 1):
        key = line.partition(" #")[0].strip()
        if not key or key.startswith("#"):
            continue
        if not sendable(key):
            raise ConfigError(f"line {number} of {path} is not a key: it must have no spaces")
        keys.append(key)
    if not keys:
        raise ConfigError(f"the key file {path} holds no key; write one a line")
    return keys


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
