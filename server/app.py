"""The composition root: settings and models in, a served application out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from fastapi import Depends, FastAPI

import server
from server.api import errors, health
from server.api.auth import require_key
from server.api.cors import Cors
from server.api.hosts import Hosts, allowed_hosts
from server.api.http_server import HttpServer
from server.api.keys import load_keys
from server.api.middleware import LastResort, RequestEnvelope
from server.api.openapi import Documented
from server.api.routes import openai_routes
from server.api.state import ApiState
from server.api.unread import Unread
from server.catalog import ResolvedModel
from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig, Tuning
from server.core.secrecy import leave_no_dump
from server.core.types import ModelInfo
from server.engine.pool import ProcessPool
from server.metrics.exporter import Exporter
from server.metrics.router import metrics_router
from server.services import sandbox
from server.services.admission import Admission
from server.services.chat import ChatService
from server.services.completions import CompletionService
from server.services.embeddings import EmbeddingService
from server.services.formats import chat_format
from server.services.models import NamedModels
from server.services.rendering import Renderers
from server.services.templates import Render
from server.services.tokens import TokenService
from server.settings import Settings

log = logging.getLogger("ingle")

LLAMA_RUNNER = "server.llama.runner:LlamaRunner"
LLAMA_EMBEDDER = "server.llama.embedder:LlamaEmbedder"

Sampling = Mapping[str, dict[str, float]]
"""Recommended sampling by model name."""
OnReady = Callable[[Sequence[ModelInfo]], None]


async def serve(
    settings: Settings,
    models: Sequence[ResolvedModel],
    on_ready: OnReady,
    tunings: Mapping[str, Tuning],
) -> None:
    """Serve until a signal. Raises StartupError when a model cannot be loaded."""
    configs = {
        model.name: _engine_config(settings, model, tunings.get(model.name, Tuning()))
        for model in models
    }
    sampling = {model.name: model.sampling for model in models}
    await serve_engines(settings, configs, on_ready, sampling)


async def serve_engines(
    settings: Settings,
    configs: Mapping[str, EngineConfig],
    on_ready: OnReady,
    sampling: Sampling | None = None,
) -> None:
    """HTTP answers from the start, so that liveness is true while models load."""
    leave_no_dump()
    exporter = Exporter(configs)
    pool = ProcessPool(configs, exporter)
    admission = Admission(settings.max_waiting)
    renderers = Renderers()
    app = create_app(settings, pool, exporter, sampling or {}, admission, renderers.render)
    http = HttpServer(app, settings)
    await http.start()
    try:
        if await http.unless_stopped(_get_ready(pool, app)):
            on_ready([engine.info for engine in pool.engines()])
            await http.stopped()
            admission.close()
            if admission.inside:
                log.warning(
                    "stopping: %d requests may end first, for up to %.0f s; again stops at once",
                    admission.inside,
                    settings.drain_seconds,
                )
            await http.unless_asked_again(admission.emptied(), settings.drain_seconds)
    finally:
        renderers.close()
        await pool.stop()  # what still runs ends with an error of its own
        await http.stop()


async def _get_ready(pool: ProcessPool, app: FastAPI) -> None:
    await pool.start()
    await asyncio.to_thread(app.state.ingle.chat.learn_formats)


def create_app(
    settings: Settings,
    pool: ProcessPool,
    exporter: Exporter,
    sampling: Sampling,
    admission: Admission,
    render: Render = sandbox.render,
) -> FastAPI:
    """`render` is what chat templates are rendered with, in this process unless told."""
    app = Documented(
        title="Ingle",
        version=server.__version__,
        openapi_url="/openapi.json" if not settings.has_keys else None,
        redoc_url=None,
        redirect_slashes=False,
    )
    models = NamedModels(pool, settings.aliases, accept_any=settings.accept_any_model)
    app.state.ingle = ApiState(
        models=models,
        chat=ChatService(
            models,
            exporter,
            max_choices=settings.max_choices,
            recommended=sampling,
            lenient=settings.tool_leniency,
            format_of=partial(chat_format, render=render),
        ),
        completions=CompletionService(
            models, exporter, max_choices=settings.max_choices, recommended=sampling
        ),
        embeddings=EmbeddingService(models, exporter),
        tokens=TokenService(models),
        admission=admission,
        ready=lambda: pool.ready,
        started=int(time.time()),
        max_body_bytes=settings.max_body_bytes,
        strict_params=settings.strict_params,
        keys=load_keys(settings),
    )
    _add_routes(app, exporter)
    errors.install(app)
    app.add_middleware(LastResort)
    app.add_middleware(Cors, origins=settings.cors_origins)
    app.add_middleware(Hosts, allowed=allowed_hosts(settings), open_paths=health.PATHS)
    app.add_middleware(Unread)
    app.add_middleware(RequestEnvelope, on_response=exporter.on_response)
    return app


def _add_routes(app: FastAPI, exporter: Exporter) -> None:
    """The OpenAI routes with and without /v1: people set `base_url` both ways."""
    openai = openai_routes()
    app.include_router(openai, prefix="/v1")
    app.include_router(openai, include_in_schema=False)
    app.include_router(health.router)
    app.include_router(metrics_router(exporter), dependencies=[Depends(require_key)])


def _engine_config(settings: Settings, model: ResolvedModel, tuning: Tuning) -> EngineConfig:
    return EngineConfig(
        runner=LLAMA_RUNNER if model.header.kind == "generate" else LLAMA_EMBEDDER,
        model=RunnerConfig(
            path=str(model.path),
            context=settings.ctx,
            slots=settings.slots,
            threads=settings.threads or tuning.threads,
            gpu_layers=settings.gpu_layers,
            micro_batch=tuning.micro_batch,
            flash_attention=tuning.flash_attention,
            kv_type=tuning.kv_type,
        ),
        scheduler=SchedulerConfig(
            target_step_ms=settings.target_step_ms,
            prefix_cache_bytes=settings.prefix_cache_mb << 20,
            watchdog_seconds=settings.watchdog_seconds,
        ),
    )
