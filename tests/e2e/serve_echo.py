"""Serves echo engines as the command line serves models: `python serve_echo.py PORT KNOBS…`.

Each KNOBS is `name=path`, such as `echo=echo:rate=50`, `embed=echo:embed` or `any=file.gguf`;
settings come from INGLE_* variables.
An echo is all guessable: guessing is off, or no rate would mean anything, unless the path says
`draft`. `ping=0.05` shortens the silence after which a stream shows a sign of life, `stalled=3` the
time after which a client that takes nothing is left, `hurry=0.1` the deadlines of connections;
`files=200` is how many files the process may have open.
"""

from __future__ import annotations

import os
import resource
import sys

import uvloop

from server import logs
from server.api import connection, sse
from server.app import LLAMA_RUNNER, serve_engines
from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.settings import load_settings

RUNNER = "server.engine.echo:EchoRunner"
EMBEDDER = "server.engine.echo_embedder:EchoEmbedder"


def runner_of(path: str) -> str:
    if path.startswith(("echo:embed", "echo:rerank")):
        return EMBEDDER
    return RUNNER if path.startswith("echo:") else LLAMA_RUNNER


def main() -> None:
    port, *knobs = sys.argv[1:]
    settings = load_settings({"port": int(port), "models": ("echo",)}, None, os.environ)
    logs.configure(settings.log_level, settings.log_format, prompts=settings.log_prompts)
    configs = {}
    for name, _, path in (knob.partition("=") for knob in knobs):
        if name == "ping":
            sse._PING_SECONDS = float(path)
            continue
        if name == "hurry":
            for deadline in ("HEAD_SECONDS", "BODY_SECONDS", "IDLE_SECONDS", "STALLED_SECONDS"):
                setattr(connection, deadline, getattr(connection, deadline) * float(path))
            continue
        if name == "files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(path), int(path)))
            continue
        if name == "stalled":
            sse._STALLED_SECONDS = float(path)
            continue
        model = RunnerConfig(path=path, slots=settings.slots, context=settings.ctx)
        configs[name] = EngineConfig(
            runner=runner_of(path),
            model=model,
            scheduler=SchedulerConfig(
                target_step_ms=settings.target_step_ms,
                draft="draft" in path,
                watchdog_seconds=settings.watchdog_seconds,
            ),
        )
    uvloop.run(serve_engines(settings, configs, lambda _: print("ready", flush=True)))


if __name__ == "__main__":
    main()
