"""What a repository on Hugging Face holds, asked of the Hub's HTTP API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from server.core.errors import ModelFileError

from .https import PATIENCE, Patience, check_status, patiently
from .hub_home import HUGGING_FACE
from .reference import is_safe_path
from .web import Web

_MAX_BYTES = 32 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RepositoryFile:
    """`size` in bytes."""

    url: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Repository:
    """The .gguf files of one revision, by their paths."""

    name: str
    licence: str | None
    files: Mapping[str, RepositoryFile]


class _Lfs(Struct):
    sha256: str | None = None
    size: int | None = None


class _Sibling(Struct):
    path: str = field(name="rfilename")
    size: int | None = None
    lfs: _Lfs | None = None


class _ModelInfo(Struct):
    sha: str = "main"
    siblings: tuple[_Sibling, ...] = ()
    tags: tuple[str, ...] = ()


def read_repository(repo: str, web: Web, patience: Patience = PATIENCE) -> Repository:
    """The repository as it is now. Raises ModelFileError."""
    url = f"{HUGGING_FACE}/api/models/{repo}/revision/main?blobs=true"
    address = web.address(url)
    raw = patiently(address, lambda: _read(web, url, repo), patience)
    try:
        info = msgspec.json.decode(raw, type=_ModelInfo)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"{address} does not answer as Hugging Face does ({error}); check HF_ENDPOINT"
        ) from None
    revision = info.sha if _COMMIT.fullmatch(info.sha) else "main"
    files = {
        sibling.path: _file(repo, revision, sibling)
        for sibling in info.siblings
        if sibling.path.endswith(".gguf") and is_safe_path(sibling.path)
    }
    return Repository(repo, _licence(info), files)


def _read(web: Web, url: str, repo: str) -> bytes:
    body = bytearray()
    with web.get(url, {"Accept": "application/json"}) as response:
        check_status(response, f"the repository {repo}")
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _MAX_BYTES:
                raise ModelFileError(f"{response.url} sends no end of data; check HF_ENDPOINT")
    return bytes(body)


def _file(repo: str, revision: str, sibling: _Sibling) -> RepositoryFile:
    lfs = sibling.lfs or _Lfs()
    sha256 = lfs.sha256 if lfs.sha256 and _SHA256.fullmatch(lfs.sha256) else None
    url = f"{HUGGING_FACE}/{repo}/resolve/{revision}/{quote(sibling.path)}"
    size = lfs.size if lfs.size is not None else sibling.size
    return RepositoryFile(url, size, sha256)


def _licence(info: _ModelInfo) -> str | None:
    named = (tag.removeprefix("license:") for tag in info.tags if tag.startswith("license:"))
    return next((name[:60] for name in named if name.isprintable()), None)
