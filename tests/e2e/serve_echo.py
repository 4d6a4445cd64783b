"""Serves echo engines as the command line serves models: `python serve_echo.py PORT KNOBS…`.

Each KNOBS is `name=path`, such as `echo=echo:rate=50`, `embed=echo:embed` or `any=file.gguf`;
settings come from INGLE_* variables.
An echo is all guessable: guessing is off, or no rate would mean anything, unless the path says
`draft`. `ping=0.05` shortens the silence after which a stream shows a sign of life, `stalled=3` the
time after which a client that takes nothing is left, `hurry=0.1` the deadlines of connections;
`files=200` is how many files the process may have open. `echo:mb=100` takes so much of `memory_mb`.
"""

from __future__ import annotations

import os
import resource
import sys

import uvloop

from server import logs
from server.api import connection, sse
from server.app import serve
from server.core.config import (
    EngineConfig,
    ModelFacts,
    PoolConfig,
    PoolModel,
    RunnerConfig,
    SchedulerConfig,
    StoreConfig,
)
from server.core.errors import ConfigError
from server.core.types import ModelKind
from server.engine.echo import knobs
from server.lineup import LLAMA_RUNNER, Serving
from server.settings import ModelOptions, Settings, load_settings

RUNNER = "server.engine.echo:EchoRunner"
EMBEDDER = "server.engine.echo_embedder:EchoEmbedder"


def runner_of(path: str) -> str:
    if path.startswith(("echo:embed", "echo:rerank")):
        return EMBEDDER
    return RUNNER if path.startswith("echo:") else LLAMA_RUNNER


def kind_of(path: str) -> ModelKind:
    kinds: tuple[ModelKind, ...] = ("embed", "rerank")
    return next((kind for kind in kinds if path.startswith(f"echo:{kind}")), "generate")


def settings_of(port: str, models: dict[str, str]) -> Settings:
    """A configuration file may serve some of the models only."""
    given = load_settings({"port": int(port)}, None, os.environ)
    if "models" in given.model_fields_set:
        return given
    return given.model_copy(update={"models": tuple(models)})


def model_of(path: str, settings: Settings, options: ModelOptions) -> PoolModel:
    return PoolModel(
        engine=EngineConfig(
            runner=runner_of(path),
            model=RunnerConfig(
                path=path,
                slots=options.slots or settings.slots,
                context=options.ctx or settings.ctx,
            ),
            scheduler=SchedulerConfig(
                target_step_ms=settings.target_step_ms,
                draft="draft" in path,
                watchdog_seconds=settings.watchdog_seconds,
                prefix_cache_bytes=1 << 20 if settings.disk_cache_mb else 0,
            ),
            store=StoreConfig(str(settings.cache_dir), settings.disk_cache_mb << 20)
            if settings.disk_cache_mb and kind_of(path) == "generate"
            else None,
        ),
        facts=ModelFacts(kind=kind_of(path)),
        bytes=int(knobs(path).get("mb", 0)) << 20,
        keep=settings.keep_alive if options.keep_alive is None else options.keep_alive,
        pin=options.pin,
        preload=settings.preload if options.preload is None else options.preload,
        replicas=options.replicas,
    )


def main() -> None:
    port, *given = sys.argv[1:]
    paths = {}
    for name, _, path in (knob.partition("=") for knob in given):
        if name == "ping":
            sse._PING_SECONDS = float(path)
        elif name == "hurry":
            for deadline in ("HEAD_SECONDS", "BODY_SECONDS", "IDLE_SECONDS", "STALLED_SECONDS"):
                setattr(connection, deadline, getattr(connection, deadline) * float(path))
        elif name == "files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(path), int(path)))
        elif name == "stalled":
            sse._STALLED_SECONDS = float(path)
        else:
            paths[name] = path

    def read() -> Serving:
        settings = settings_of(port, paths)
        for name in settings.models:
            if name not in paths:
                raise ConfigError(f"unknown model {name}")
        models = {
            name: model_of(paths[name], settings, settings.model.get(name, ModelOptions()))
            for name in settings.models
        }
        most = (settings.memory_mb or 1 << 30) << 20
        return Serving(settings, models, PoolConfig(most, settings.swap_seconds))

    serving = read()
    settings = serving.settings
    logs.configure(settings.log_level, settings.log_format, prompts=settings.log_prompts)
    uvloop.run(serve(serving, lambda _: print("ready", flush=True), read))


if __name__ == "__main__":
    main()
