"""What a MODEL argument names beyond a catalogue name or a path: a place to fetch a model from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from server.core.errors import ConfigError

_REPO = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_QUANT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HUB_PREFIX = re.compile(r"(hf:(//)?|(https?://)?(www\.)?(huggingface\.co|hf\.co)/)")
_HUB_FORM = "write hf:ORG/REPO, hf:ORG/REPO:QUANT or hf:ORG/REPO/FILE.gguf"
_OLLAMA_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,3}")


@dataclass(frozen=True, slots=True)
class HubReference:
    """A model of a repository on Hugging Face: a quantisation of it, a file, or the usual one."""

    repo: str
    quant: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        rest = f"/{self.file}" if self.file else f":{self.quant}" if self.quant else ""
        return f"hf:{self.repo}{rest}"


@dataclass(frozen=True, slots=True)
class UrlReference:
    """A file at an address, with the SHA-256 it must have where one is given."""

    url: str
    sha256: str | None = None

    @property
    def file(self) -> str:
        return unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def __str__(self) -> str:
        return f"{self.url}#sha256={self.sha256}" if self.sha256 else self.url


@dataclass(frozen=True, slots=True)
class OllamaReference:
    """A model in Ollama's folder, by the name Ollama knows it by."""

    name: str

    def __str__(self) -> str:
        return f"ollama:{self.name}"


Reference = HubReference | UrlReference | OllamaReference


def parse_reference(word: str) -> Reference | None:
    """None for what is no reference: a name or a path. Raises ConfigError for a malformed one."""
    prefix = _HUB_PREFIX.match(word)
    if prefix:
        return _on_the_hub(word, word[prefix.end() :])
    if word.startswith("ollama:"):
        return _of_ollama(word)
    if word.startswith(("https://", "http://")):
        return _at_an_address(word)
    return None


def is_safe_path(path: str) -> bool:
    """Whether a path of a repository stays below a directory, on any system."""
    parts = path.split("/")
    plain = path.isprintable() and "\\" not in path and ":" not in path and len(path) <= 512
    return plain and all(part not in ("", ".", "..") and len(part) <= 200 for part in parts)


def is_repository(name: str) -> bool:
    """Whether it has the form ORG/REPO."""
    return _REPO.fullmatch(name) is not None and ".." not in name


def _on_the_hub(word: str, rest: str) -> HubReference | UrlReference:
    """ORG/REPO and what follows it, also in the forms that are copied from a web page."""
    if "#" in rest and word.startswith("http"):
        return _at_an_address(word)
    rest = unquote(rest.partition("?")[0]).rstrip("/")
    repo, colon, quant = rest.partition(":")
    org, _, below = repo.partition("/")
    name, _, file = below.partition("/")
    if file:
        repo, web = f"{org}/{name}", file.split("/", 2)
        if web[0] in ("blob", "resolve", "tree", "raw") and len(web) > 1:
            if web[1] != "main":
                return _at_an_address(f"https://huggingface.co/{repo}/resolve/{'/'.join(web[1:])}")
            file = web[2] if len(web) > 2 else ""
    wrong = not is_repository(repo)
    wrong |= bool(colon) and not (_QUANT.fullmatch(quant) and is_safe_path(quant))
    wrong |= bool(file) and not (not colon and file.endswith(".gguf") and is_safe_path(file))
    if wrong:
        raise ConfigError(f"{word} is not a model on Hugging Face; {_HUB_FORM}")
    return HubReference(repo, quant or None, file or None)


def _of_ollama(word: str) -> OllamaReference:
    name = word.removeprefix("ollama:").removeprefix("//")
    model, _, tag = name.partition(":")
    if not _OLLAMA_NAME.fullmatch(model) or (tag and not _QUANT.fullmatch(tag)):
        raise ConfigError(f"{word} is not a model of Ollama; write ollama:NAME or ollama:NAME:TAG")
    return OllamaReference(name)


def _at_an_address(word: str) -> UrlReference:
    address, _, fragment = word.partition("#")
    sha256 = fragment.removeprefix("sha256=").lower() or None
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ConfigError(f"{word} ends in no checksum; write #sha256= and 64 hexadecimal digits")
    try:
        parts = urlsplit(address)
        sound = bool(parts.hostname) and parts.port != 0 and address.isprintable()
    except ValueError:
        sound = False
    if not sound or " " in address:
        raise ConfigError(f"{word} is not an address; write https://HOST/PATH/FILE.gguf")
    if parts.username or parts.password:
        raise ConfigError("an address with a password in it is not fetched; give one without")
    reference = UrlReference(address, sha256)
    if not reference.file.endswith(".gguf") or not is_safe_path(reference.file):
        raise ConfigError(f"{address} does not end in the name of a .gguf file; give its address")
    if parts.scheme == "http" and sha256 is None:
        raise ConfigError(
            f"{address} can be changed on its way; use https://, or add #sha256= and its checksum"
        )
    return reference
