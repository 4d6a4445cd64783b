"""`ingle serve`: everything that can be refused is refused before a model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .names import known_models
from .options import Config, ModelsDir

if TYPE_CHECKING:
    from server.catalog import ResolvedModel
    from server.core.types import ModelInfo
    from server.lineup import Lineup, Serving
    from server.settings import Settings
    from server.tune import Profile

log = logging.getLogger("ingle.cli")


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            autocompletion=known_models,
            help="Names that `ingle list` shows, paths to .gguf files, hf:ORG/REPO[:QUANT], "
            "https://… or ollama:NAME. Default: smollm2-135m-instruct.",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Listen here. Default: 127.0.0.1.")
    ] = None,
    port: Annotated[
        str | None, typer.Option(metavar="PORT", help="Listen on this port. Default: 8000.")
    ] = None,
    ctx: Annotated[
        str | None, typer.Option(metavar="TOKENS", help="Context of one slot. Default: what fits.")
    ] = None,
    slots: Annotated[
        str | None,
        typer.Option(metavar="N", help="Sequences that run at once. Default: what fits."),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(metavar="N", help="CPU threads. Default: the cores allowed to us.")
    ] = None,
    gpu_layers: Annotated[
        str | None, typer.Option(metavar="N", help="Layers on the GPU, if there is one. -1: all.")
    ] = None,
    memory_mb: Annotated[
        str | None,
        typer.Option(metavar="MIB", help="Memory for all models together. Default: what is free."),
    ] = None,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="How long a model nobody asks for stays in memory: seconds, 10m, 1h. Default: as "
            "long as memory allows.",
        ),
    ] = None,
    preload: Annotated[
        bool | None,
        typer.Option(
            help="Load the models that fit at the start, or each when it is first asked for.",
            show_default=False,
        ),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            show_default=False,
            help="Key that clients must send; may be given several times. INGLE_API_KEY and "
            "--api-key-file keep keys out of the process list.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File of keys, one a line, with # comments."),
    ] = None,
    cors_origins: Annotated[
        str | None,
        typer.Option(
            metavar="ORIGINS",
            help="Web origins whose pages may use the API, commas between. Default: localhost.",
        ),
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option("--insecure", help="Listen on the network without a key.", show_default=False),
    ] = None,
    allowed_hosts: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Names to answer under besides localhost, commas between, such as that of a "
            "reverse proxy. Default: all if others can reach the server, else none.",
        ),
    ] = None,
    aliases: Annotated[
        str | None,
        typer.Option(metavar="ALIAS=MODEL,…", help="Other names of the models."),
    ] = None,
    accept_any_model: Annotated[
        bool | None,
        typer.Option(help="Serve requests for unknown models with the first that can."),
    ] = None,
    strict_params: Annotated[
        bool | None,
        typer.Option(help="Refuse unknown request fields instead of ignoring them."),
    ] = None,
    models_dir: ModelsDir = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT", help="pretty, json or auto. Default: pretty on a terminal, else JSON."
        ),
    ] = None,
    log_prompts: Annotated[
        bool | None, typer.Option(help="Let log lines hold what users write.")
    ] = None,
    config: Config = None,
) -> None:
    """Serve models; fetch those that are not here yet.

    Every option is also a variable (INGLE_PORT=8001) and a key of the settings file (port = 8001).
    """
    from server.settings import load_settings

    flags = {
        "models": tuple(models) if models else None,
        "host": host,
        "port": port,
        "ctx": ctx,
        "slots": slots,
        "threads": threads,
        "gpu_layers": gpu_layers,
        "memory_mb": memory_mb,
        "keep_alive": keep_alive,
        "preload": preload,
        "api_key": tuple(api_key) if api_key else None,
        "api_key_file": api_key_file,
        "cors_origins": cors_origins,
        "insecure": insecure,
        "allowed_hosts": allowed_hosts,
        "aliases": aliases,
        "accept_any_model": accept_any_model,
        "strict_params": strict_params,
        "models_dir": models_dir,
        "log_level": log_level,
        "log_format": log_format,
        "log_prompts": log_prompts,
    }
    start(lambda: load_settings(flags, config))


def start(read: Callable[[], Settings]) -> None:
    """`read` gives the settings, each time as they are then."""
    from .checks import check_exposure, check_keys, check_memory, check_port

    settings = read()
    configure_logs(settings)
    check_exposure(settings)
    check_keys(settings)
    check_port(settings.host, settings.port)
    lineup, notes = line_up(settings)

    from server.app import serve as serve_app
    from server.engine.volatile import remove, volatile_store
    from server.lineup import budget_of, kept_in_memory

    budget = budget_of(settings)
    check_memory(lineup.models, budget)
    volatile = volatile_store(kept_in_memory(settings, budget))

    def reread() -> Serving:
        changed = read()
        again, _ = line_up(changed, fetch_missing=False)
        check_memory(again.models, size := _budget(changed, budget))
        return again.serving(size, volatile)

    try:
        _run(
            serve_app(
                lineup.serving(budget, volatile),
                lambda loaded: _announce(settings, lineup.models, loaded, notes),
                reread,
            )
        )
    finally:
        remove(volatile)


def _budget(changed: Settings, before: int) -> int:
    """What is free is not what was, once models are loaded."""
    from server.lineup import budget_of

    return before if changed.memory_mb is None else budget_of(changed)


def configure_logs(settings: Settings) -> None:
    from server import logs

    logs.configure(settings.log_level, settings.log_format, prompts=settings.log_prompts)
    if settings.log_prompts:
        log.warning("log_prompts is on: what users write will stand in the log")


def prepare(settings: Settings, *, fetch_missing: bool = True) -> list[ResolvedModel]:
    """Every model's file, fetched if need be and checked."""
    from server.catalog import ModelStore, check_distinct, inspect, load_catalog, locate

    from .pull import fetch

    catalog, store = load_catalog(), ModelStore(settings.models_dir)
    targets = locate(settings.served, catalog, store)
    if fetch_missing:
        targets = [fetch(target, catalog, store) for target in targets]
        check_distinct(targets)
    return [inspect(target) for target in targets]


def line_up(settings: Settings, *, fetch_missing: bool = True) -> tuple[Lineup, dict[str, str]]:
    """What to serve, and by model name what a tuned profile changed of it."""
    from server.lineup import Lineup

    profiles, models = apply_profiles(settings, prepare(settings, fetch_missing=fetch_missing))
    tunings = {name: profile.tuning for name, profile in profiles.items()}
    lineup = Lineup(settings, settings.served, tuple(models), tunings)
    for name in lineup.unused_options():
        log.warning("the table [model.%s] is of no model that is served", name)
    return lineup, {name: p.summary(settings.threads) for name, p in profiles.items()}


def apply_profiles(
    settings: Settings, models: Sequence[ResolvedModel]
) -> tuple[dict[str, Profile], list[ResolvedModel]]:
    """What `ingle tune` found for these models on this machine, and the models with its weights."""
    from server.tune import ProfileStore
    from server.tune.machine import this_machine

    machine, profiles, applied = this_machine(), {}, []
    for model in models:
        store = ProfileStore(settings.models_dir, model.path, machine)
        profile = store.find(model.name)
        if profile is not None:
            profiles[model.name] = profile
            model = store.apply(profile, model)
        applied.append(model)
    return profiles, applied


def _announce(
    settings: Settings,
    models: Sequence[ResolvedModel],
    loaded: Mapping[str, ModelInfo],
    tuned: Mapping[str, str],
) -> None:
    from server.llama.machine import available_memory

    from .banner import banner

    typer.echo(banner(settings, models, loaded, available_memory(), tuned=tuned))


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        import asyncio

        asyncio.run(main)
    else:
        uvloop.run(main)
