"""`ingle pull`, and what every command does with a model that is not here yet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .names import known_models
from .options import Config, ModelsDir

if TYPE_CHECKING:
    from server.catalog import Catalog, ModelSpec, ModelStore, Target
    from server.catalog.reference import HubReference, UrlReference
    from server.catalog.store import PulledModel


def pull(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            autocompletion=known_models,
            help="Catalogue names (see `ingle list`), hf:ORG/REPO[:QUANT], hf:ORG/REPO/FILE.gguf "
            "or https://HOST/FILE.gguf[#sha256=…].",
        ),
    ],
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """Fetch models; a model that is already here costs nothing."""
    from server.catalog import inspect, locate

    catalog, store = open_store(models_dir, config)
    for target in locate(models, catalog, store):
        if target.missing is None:
            inspect(target)
            owner = f" ({target.found.owner})" if target.found else ""
            typer.echo(f"{target.name} is already here{owner}: {target.path}")
        else:
            fetch(target, catalog, store)


def open_store(models_dir: Path | None, config: Path | None) -> tuple[Catalog, ModelStore]:
    from server.catalog import ModelStore, load_catalog
    from server.settings import load_settings

    settings = load_settings({"models_dir": models_dir}, config)
    return load_catalog(), ModelStore(settings.models_dir)


def fetch(target: Target, catalog: Catalog, store: ModelStore) -> Target:
    """The target, pulled if it is missing, with what is said about it on stderr."""
    from dataclasses import replace

    from server.catalog import ModelSpec
    from server.catalog.resolve import pulled_target

    missing = target.missing
    if missing is None:
        return target
    try:
        if isinstance(missing, ModelSpec):
            _fetch_spec(missing, store)
            return replace(target, missing=None)
        return pulled_target(_fetch_reference(missing, catalog, store))
    except KeyboardInterrupt:
        typer.echo("\nstopped; what came is kept, the same command goes on there", err=True)
        raise


def _fetch_spec(spec: ModelSpec, store: ModelStore) -> None:
    from server.catalog.pull import pull as pull_model

    from .progress import show_progress
    from .units import in_bytes

    about = "" if spec.verified else "about "
    typer.echo(f"fetching {spec.name} ({about}{in_bytes(spec.size)}, {spec.licence})", err=True)
    with show_progress(spec.name) as report:
        path = pull_model(spec, store, report)
    typer.echo(f"{spec.name} is here: {path}", err=True)


def _fetch_reference(
    reference: HubReference | UrlReference, catalog: Catalog, store: ModelStore
) -> PulledModel:
    from server.catalog.plan import plan
    from server.catalog.pull import pull_plan

    from .progress import show_progress
    from .units import in_bytes

    wanted = plan(reference, catalog, store)
    known = [in_bytes(wanted.size) if wanted.size else None, wanted.licence]
    if len(wanted.files) > 1:
        known.insert(0, f"{len(wanted.files)} files")
    about = ", ".join(fact for fact in known if fact)
    typer.echo(f"fetching {wanted.name}{f' ({about})' if about else ''}", err=True)
    with show_progress(wanted.name.rsplit("/", 1)[-1]) as report:
        pulled = pull_plan(wanted, store, report)
    typer.echo(f"{wanted.name} is here: {pulled.path}", err=True)
    return pulled
