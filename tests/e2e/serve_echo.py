"""Serves echo engines as the command line serves models: `python serve_echo.py PORT KNOBS…`.

Each KNOBS is `name=path`, such as `echo=echo:rate=50` or `embed=echo:embed`; settings come from
INGLE_* variables.
An echo is all guessable: guessing is off, or no rate would mean anything, unless the path says
`draft`. `ping=0.05` shortens the silence after which a stream shows a sign of life.
"""

from __future__ import annotations

import os
import sys

import uvloop

from server import logs
from server.api import sse
from server.app import serve_engines
from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.settings import load_settings

RUNNER = "server.engine.echo:EchoRunner"
EMBEDDER = "server.engine.echo_embedder:EchoEmbedder"


def main() -> None:
    port, *knobs = sys.argv[1:]
    settings = load_settings({"port": int(port), "models": ("echo",)}, None, os.environ)
    logs.configure(settings.log_level, settings.log_format, prompts=settings.log_prompts)
    configs = {}
    for name, _, path in (knob.partition("=") for knob in knobs):
        if name == "ping":
            sse._PING_SECONDS = float(path)
            continue
        model = RunnerConfig(path=path, slots=settings.slots, context=settings.ctx)
        configs[name] = EngineConfig(
            runner=EMBEDDER if path.startswith(("echo:embed", "echo:rerank")) else RUNNER,
            model=model,
            scheduler=SchedulerConfig(
                target_step_ms=settings.target_step_ms, draft="draft" in path
            ),
        )
    uvloop.run(serve_engines(settings, configs, lambda _: print("ready", flush=True)))


if __name__ == "__main__":
    main()
