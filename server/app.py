"""The composition root: settings and models in, a served application out."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

from fastapi import Depends, FastAPI

import server
from server import logs
from server.api import admin, errors, health, web
from server.api.auth import require_key
from server.api.cors import Cors
from server.api.gate import Gate
from server.api.hosts import Hosts, allowed_hosts
from server.api.http_server import LAST_SECONDS, HttpServer
from server.api.in_flight import InFlight
from server.api.keys import ApiKeys, load_keys
from server.api.middleware import LastResort, RequestEnvelope
from server.api.openapi import Documented
from server.api.pulling import Pulls
from server.api.routes import gated_routes, openai_routes
from server.api.state import Administration, ApiState, Rules
from server.api.summary import Summaries
from server.api.unread import Unread
from server.core.errors import ShuttingDown
from server.core.secrecy import leave_no_dump
from server.core.stats import AdmissionSink
from server.core.types import ModelInfo
from server.engine.pool import ModelPool
from server.lineup import Serving
from server.llama.machine import available_memory
from server.metrics.exporter import Exporter
from server.metrics.router import metrics_router
from server.reloading import Reloader, Reread, armed
from server.services import sandbox
from server.services.admission import Admission
from server.services.chat import ChatService
from server.services.completions import CompletionService
from server.services.embeddings import EmbeddingService
from server.services.formats import chat_format
from server.services.models import NamedModels
from server.services.quotas import Quotas
from server.services.rendering import Renderers
from server.services.templates import Render
from server.services.tokens import TokenService
from server.settings import Settings
from server.systemd import Systemd

log = logging.getLogger("ingle")

ROUNDS = 4
"""How often the slots may be filled with the prompts that wait, unless a setting says: minutes of
work for a small machine, and every slot may still begin with the longest of prompts."""

Loaded = Mapping[str, ModelInfo]
"""Those in memory by name, in the order of the models."""
OnReady = Callable[[Loaded], None]


async def serve(serving: Serving, on_ready: OnReady, reread: Reread | None = None) -> None:
    """Serve until a signal. Raises StartupError when a model cannot be loaded.

    HTTP answers from the start, so that liveness is true while models load. `reread` is asked for
    what to serve from then on, when the server is told that the configuration changed.
    """
    leave_no_dump()
    settings = serving.settings
    exporter = Exporter(serving.models)
    pool = ModelPool(armed(serving), serving.pool, exporter, available=available_memory)
    exporter.watch_memory(lambda: pool.memory)
    admission = admission_of(settings, pool, exporter)
    renderers, sampling = Renderers(), dict(serving.sampling)
    app = create_app(settings, pool, exporter, sampling, admission, renderers.render)
    on_refused = partial(exporter.on_response, "", "connection")
    http, systemd = HttpServer(app, settings, on_refused), Systemd()
    asyncio.get_running_loop().set_exception_handler(logs.on_loop_error)
    await http.start()
    systemd.loading(len(serving.models))
    watched = asyncio.create_task(systemd.watched(lambda: pool.progressing), name="systemd")
    try:
        if await http.unless_stopped(_get_ready(pool, app)):
            _spare_pauses()
            if reread is not None:
                reloader = Reloader(serving, reread, app.state.ingle, pool, exporter, sampling)
                http.on_hangup = reloader.on_hangup
                app.state.ingle.admin.reload = reloader.reload_and_tell
            on_ready({e.name: e.info for e in pool.engines() if e.loaded is not None})
            systemd.ready(list(serving.models))
            await http.stopped()
            admission.close()
            stopping = ShuttingDown("The server is shutting down. Please try again shortly.")
            app.state.ingle.admin.in_flight.end_unread(stopping)
            systemd.stopping(admission.inside, settings.drain_seconds + LAST_SECONDS)
            if admission.inside:
                told = {"requests": admission.inside, "seconds": settings.drain_seconds}
                log.warning(
                    "stopping; requests may end first, a second signal ends them", extra=told
                )
            await http.unless_asked_again(admission.emptied(), settings.drain_seconds)
    finally:
        watched.cancel()
        renderers.close()
        await pool.stop()  # what still runs ends with an error of its own
        await http.stop()


async def _get_ready(pool: ModelPool, app: FastAPI) -> None:
    await pool.start()
    await asyncio.to_thread(app.state.ingle.chat.learn_formats)


def _spare_pauses() -> None:
    """A full collection pauses every stream: 70 ms over what a server consists of, 390 ms beside
    fifty long conversations that are read. So what is here stays out of it, it comes a hundred
    times more rarely than by default, and threads that compute give way after 1 ms, not 5."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 1000)
    sys.setswitchinterval(0.001)


def admission_of(settings: Settings, pool: ModelPool, stats: AdmissionSink) -> Admission:
    def most_tokens() -> float:
        return settings.max_waiting_tokens or ROUNDS * pool.tokens or math.inf

    return Admission(
        settings.max_waiting,
        slots=lambda: pool.slots,
        most_tokens=most_tokens,
        quotas=Quotas(settings.key_max_requests, settings.key_tokens_per_minute),
        queue_seconds=settings.queue_seconds,
        request_seconds=settings.request_seconds,
        stats=stats,
    )


def create_app(
    settings: Settings,
    pool: ModelPool,
    exporter: Exporter,
    sampling: Mapping[str, dict[str, float]],
    admission: Admission,
    render: Render = sandbox.render,
) -> FastAPI:
    """`sampling` is the recommended one by model name. `render` is what chat templates are
    rendered with, in this process unless told."""
    app = Documented(
        title="Ingle",
        version=server.__version__,
        openapi_url=None,  # api/web serves the document, to those who have a key
        redirect_slashes=False,
    )
    keys, in_flight = load_keys(settings), InFlight()
    summaries = Summaries(pool, prompts=settings.log_prompts)
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
        rules=Rules(settings.max_body_bytes, settings.strict_params),
        large_body=asyncio.Lock(),
        keys=keys,
        admin=Administration(
            pool=pool,
            in_flight=in_flight,
            keys=ApiKeys([settings.admin_key.get_secret_value()] if settings.admin_key else []),
            pull=Pulls(settings.models_dir).frames,
            recent=summaries.recent,
        ),
    )
    _add_routes(app, exporter)
    errors.install(app)
    app.add_middleware(
        Gate, admission=admission, keys=keys, routes=gated_routes(), in_flight=in_flight
    )
    app.add_middleware(LastResort)
    app.add_middleware(Cors, origins=settings.cors_origins)
    app.add_middleware(Hosts, allowed=allowed_hosts(settings), open_paths=health.PATHS)
    app.add_middleware(Unread)
    app.add_middleware(RequestEnvelope, on_response=exporter.on_response, summaries=summaries)
    return app


def _add_routes(app: FastAPI, exporter: Exporter) -> None:
    """The OpenAI routes with and without /v1: people set `base_url` both ways."""
    openai = openai_routes()
    app.include_router(openai, prefix="/v1")
    app.include_router(openai, include_in_schema=False)
    app.include_router(health.router)
    app.include_router(admin.router)
    app.include_router(web.router)
    web.files()
    app.include_router(metrics_router(exporter), dependencies=[Depends(require_key)])
