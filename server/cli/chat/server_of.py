"""Whom a conversation is held with: a server that runs and has the model, else one of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from server.cli.remote import Refused, Remote, Unreachable, remote_of
from server.core.errors import ConfigError

from .own_server import own_server

if TYPE_CHECKING:
    from server.catalog import Target
    from server.settings import Loaded

_LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Served:
    """`name` is what the server calls the model; a base model does not chat."""

    server: Remote
    name: str
    chats: bool


@dataclass(frozen=True)
class Wanted:
    """`word` is as it was given; `flags` are those of `ingle serve`."""

    word: str
    url: str | None
    api_key: str | None
    flags: Mapping[str, str | None]
    models_dir: Path | None
    config: Path | None


@contextmanager
def server_of(wanted: Wanted) -> Iterator[Served]:
    """Says on standard error what it does. Raises IngleError."""
    from server.settings import URL_VARIABLE, read_settings

    keys = (wanted.api_key,) if wanted.api_key else None
    loaded = read_settings({"api_key": keys, "models_dir": wanted.models_dir}, wanted.config)
    asked_there = wanted.url or os.environ.get(URL_VARIABLE)
    with remote_of(loaded, wanted.url, ("api_key", "api_key_file")) as remote:
        if asked_there:
            yield _must_serve(remote, wanted.word, _names(loaded, wanted.word))
            return
        found = _serving(remote, _names(loaded, wanted.word))
        if found is not None and not any(wanted.flags.values()):
            typer.echo(f"{found.name} is served at {remote.url}", err=True)
            yield found
            return
    with _own(loaded, wanted) as served:
        yield served


def _names(loaded: Loaded, word: str) -> set[str]:
    """What a server may call it; one of its aliases may be known to it alone."""
    try:
        return {word, _located(loaded, word).name}
    except ConfigError:
        return {word}


def _must_serve(remote: Remote, word: str, names: Iterable[str]) -> Served:
    models = _models(remote)
    found = _entry(models, names)
    if found is None:
        from server.cli.words import did_you_mean

        close = did_you_mean(word, [str(model["id"]) for model in models])
        raise ConfigError(f"the server at {remote.url} has no model {word}{close}")
    return _served(remote, found)


def _serving(remote: Remote, names: Iterable[str]) -> Served | None:
    """None as well where something else answers, or wants a key that is not known."""
    try:
        found = _entry(_models(remote), names)
    except (Unreachable, Refused):
        return None
    return _served(remote, found) if found else None


def _models(remote: Remote) -> list[dict[str, Any]]:
    told = remote.get("/v1/models", _LOOK_SECONDS)
    models = told.get("data") if isinstance(told, dict) else None
    if not isinstance(models, list) or not all("id" in model for model in models):
        raise Unreachable(f"what answers at {remote.url} is no such server")
    return models


def _entry(models: list[dict[str, Any]], names: Iterable[str]) -> dict[str, Any] | None:
    return next((model for model in models if model["id"] in names), None)


def _served(remote: Remote, entry: dict[str, Any]) -> Served:
    capabilities = entry.get("capabilities") or ["completion", "chat"]
    _check_writes(entry["id"], "completion" in capabilities or "chat" in capabilities)
    return Served(remote, entry["id"], "chat" in capabilities)


def _check_writes(name: str, writes: bool) -> None:
    if not writes:
        raise ConfigError(f"{name} generates no text; run is for models that do")


def _located(loaded: Loaded, word: str) -> Target:
    from server.catalog import ModelStore, load_catalog, locate

    return locate([word], load_catalog(), ModelStore(loaded.settings.models_dir))[0]


@contextmanager
def _own(loaded: Loaded, wanted: Wanted) -> Iterator[Served]:
    from server.catalog import ModelStore, inspect, load_catalog
    from server.cli.pull import fetch

    store = ModelStore(loaded.settings.models_dir)
    model = inspect(fetch(_located(loaded, wanted.word), load_catalog(), store))
    _check_writes(model.name, model.header.kind == "generate")
    slots = "1" if loaded.origins["slots"].kind == "default" else None
    flags = {"slots": slots, "models-dir": str(loaded.settings.models_dir), **wanted.flags}
    typer.echo(f"loading {model.name} for this conversation", err=True)
    with own_server(wanted.word, flags, wanted.config) as remote:
        (entry,) = _models(remote)[:1]
        with _advising(entry.get("context_length"), model.header.context_length):
            yield Served(remote, entry["id"], model.header.chat_template)


@contextmanager
def _advising(context: int | None, most: int | None) -> Iterator[None]:
    """How a server of its own takes more than this."""
    try:
        yield
    except Refused as error:
        if error.error_code != "context_length_exceeded" or not context or context >= (most or 0):
            raise
        message = f"{error.message} --ctx TOKENS sets it, up to {most} for this model."
        raise Refused(error.status, message, error.error_code) from None
