"""Models that other programs have on this machine. They are read, never written or removed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from server.core.errors import ConfigError

from .hub_home import hub_home, is_offline, user_home
from .quants import choose, holds, is_first
from .reference import HubReference, OllamaReference, is_repository, is_safe_path

Owner = Literal["Hugging Face", "LM Studio", "Ollama"]

_OLLAMA_SYSTEM = Path("/usr/share/ollama/.ollama/models")
_OLLAMA_MODEL = "application/vnd.ollama.image.model"
_OLLAMA_ADAPTER = "application/vnd.ollama.image.adapter"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """A model of another program. `reference` finds it again, `name` is what clients call it.

    `files` are all parts of it; an engine loads the first.
    """

    name: str
    reference: str
    owner: Owner
    files: tuple[Path, ...]
    sha256: str | None = None

    @property
    def path(self) -> Path:
        return self.files[0]


class _Layer(Struct):
    media_type: str = field(name="mediaType", default="")
    digest: str = ""


class _Manifest(Struct):
    layers: tuple[_Layer, ...] = ()


class Elsewhere:
    """`home` and `environ` say where the programs keep their files."""

    def __init__(self, environ: Mapping[str, str] = os.environ, home: Path | None = None) -> None:
        self._environ = environ
        self._home = home or user_home()

    def find(self, reference: HubReference | OllamaReference) -> Found | None:
        """The model that is meant, if it is here for sure; offline, what comes nearest to it."""
        if isinstance(reference, OllamaReference):
            return self._in_ollama(reference.name)
        for owner, _, files in self._shelves(reference.repo):
            if holds(files, reference) or is_offline(self._environ):
                found = _chosen(owner, files, reference)
                if found:
                    return found
        return self._pulled_by_ollama(reference)

    def named(self, name: str) -> Found | None:
        return next((found for found in self.all() if found.name == name), None)

    def all(self) -> list[Found]:
        """Everything that could be served, sorted by owner and name."""
        found = {(model.owner, model.name): model for model in self._ollama()}
        for owner, repo, files in self._shelves():
            for first in filter(is_first, files):
                chosen = _chosen(owner, files, HubReference(repo, file=first))
                if chosen:
                    found.setdefault((owner, chosen.name), chosen)
        return sorted(found.values(), key=lambda model: (model.owner, model.name.lower()))

    def _shelves(self, repo: str = "*/*") -> Iterator[tuple[Owner, str, dict[str, Path]]]:
        """Owner, repository, and its .gguf files by their paths in it."""
        org, name = repo.split("/")
        for root in self._hub_caches():
            for folder in _folders(root, f"models--{org}--{name}"):
                found = folder.name.removeprefix("models--").replace("--", "/")
                for snapshot in _snapshots(folder) if is_repository(found) else ():
                    yield "Hugging Face", found, _gguf_files(snapshot)
        for root in self._lm_studio():
            for folder in _folders(root, repo):
                found = f"{folder.parent.name}/{folder.name}"
                if is_repository(found):
                    yield "LM Studio", found, _gguf_files(folder, "*.gguf")

    def _hub_caches(self) -> list[Path]:
        places = [self._environ.get("HF_HUB_CACHE") or self._environ.get("HUGGINGFACE_HUB_CACHE")]
        if not places[0]:
            places = [str(hub_home(self._environ, self._home) / "hub")]
        return _distinct([*places, self._environ.get("LLAMA_CACHE")])

    def _lm_studio(self) -> list[Path]:
        homes = [self._home / ".lmstudio", self._home / ".cache" / "lm-studio"]
        with suppress(OSError, UnicodeDecodeError):
            homes.insert(0, Path((self._home / ".lmstudio-home-pointer").read_text().strip()))
        folders: list[str | None] = []
        for home in homes:
            with suppress(OSError, ValueError):
                settings = msgspec.json.decode((home / "settings.json").read_bytes())
                folder = settings.get("downloadsFolder") if isinstance(settings, dict) else None
                folders.append(folder if isinstance(folder, str) else None)
            folders.append(str(home / "models"))
        return _distinct(folders)

    def _ollama_roots(self) -> list[Path]:
        return _distinct(
            [
                self._environ.get("OLLAMA_MODELS"),
                str(self._home / ".ollama" / "models"),
                str(_OLLAMA_SYSTEM),
            ]
        )

    def _ollama(self) -> Iterator[Found]:
        seen = set()
        for root in self._ollama_roots():
            for manifest in _files(root / "manifests", "*/*/*/*"):
                name = _ollama_name(manifest.relative_to(root / "manifests").parts)
                found = _from_manifest(root, manifest, name) if name else None
                if found and found.name not in seen:
                    seen.add(found.name)
                    yield found

    def _in_ollama(self, name: str) -> Found | None:
        wanted = name if ":" in name else f"{name}:latest"
        wanted = wanted.lower()
        return next((found for found in self._ollama() if found.name.lower() == wanted), None)

    def _pulled_by_ollama(self, reference: HubReference) -> Found | None:
        """`ollama pull hf.co/ORG/REPO:QUANT` keeps the repository's own file."""
        if reference.quant is None:
            return None
        names = (
            f"{host}/{reference.repo}:{reference.quant}" for host in ("hf.co", "huggingface.co")
        )
        return next((found for found in map(self._in_ollama, names) if found), None)


def _chosen(owner: Owner, files: Mapping[str, Path], reference: HubReference) -> Found | None:
    try:
        choice = choose(files, reference)
    except ConfigError:
        return None
    paths = tuple(files[path] for path in choice.files)
    sha256 = _linked_sha256(paths[0]) if len(paths) == 1 else None
    exact = HubReference(reference.repo, file=choice.files[0])
    return Found(choice.name, str(exact), owner, paths, sha256)


def _snapshots(folder: Path) -> list[Path]:
    """The revisions of a cached repository: `main`, then others, the newest first."""
    revision = ""
    with suppress(OSError, UnicodeDecodeError):
        revision = (folder / "refs" / "main").read_text().strip()
    snapshots = _folders(folder / "snapshots", "*")
    return sorted(snapshots, key=lambda path: (path.name != revision, -_changed(path)))


def _gguf_files(folder: Path, pattern: str = "**/*.gguf") -> dict[str, Path]:
    files = {path.relative_to(folder).as_posix(): path for path in _files(folder, pattern)}
    return {name: path for name, path in files.items() if is_safe_path(name)}


def _files(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(path for path in folder.glob(pattern) if _is_there(path))
    except OSError:
        return []


def _is_there(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def _folders(root: Path, pattern: str) -> list[Path]:
    try:
        return sorted(path for path in root.glob(pattern) if path.is_dir())
    except OSError:
        return []


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _distinct(places: list[str | None]) -> list[Path]:
    return list(dict.fromkeys(Path(place).expanduser() for place in places if place))


def _linked_sha256(path: Path) -> str | None:
    """The cache links to a file that is named by its checksum."""
    try:
        name = path.readlink().name
    except OSError:
        return None
    return name if _SHA256.fullmatch(name) else None


def _ollama_name(parts: tuple[str, ...]) -> str | None:
    """HOST/NAMESPACE/MODEL/TAG, as Ollama shows it: what is usual is left out."""
    if len(parts) != 4 or not all(part.isprintable() and part[0] != "." for part in parts):
        return None
    host, namespace, model, tag = parts
    if host != "registry.ollama.ai":
        return f"{host}/{namespace}/{model}:{tag}"
    return f"{model}:{tag}" if namespace == "library" else f"{namespace}/{model}:{tag}"


def _from_manifest(root: Path, path: Path, name: str) -> Found | None:
    """None for what is not one plain GGUF file: adapters change what a model says."""
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            return None
        manifest = msgspec.json.decode(path.read_bytes(), type=_Manifest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    kinds = [layer.media_type for layer in manifest.layers]
    digests = [layer.digest for layer in manifest.layers if layer.media_type == _OLLAMA_MODEL]
    digest = _DIGEST.fullmatch(digests[0]) if len(digests) == 1 else None
    if digest is None or _OLLAMA_ADAPTER in kinds:
        return None
    blob = root / "blobs" / f"sha256-{digest[1]}"
    if not os.access(blob, os.R_OK):
        return None
    return Found(name, f"ollama:{name}", "Ollama", (blob,), digest[1])
