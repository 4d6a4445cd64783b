"""The configuration read again while the server runs, without a request that fails for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct, structs

from server.api.keys import load_keys
from server.api.state import ApiState
from server.core.config import PoolModel
from server.core.errors import StartupError
from server.engine import faults
from server.engine.pool import ModelPool
from server.metrics.exporter import Exporter
from server.services.models import check_aliases
from server.settings import FAULTS_VARIABLE, Settings

from .lineup import Serving

log = logging.getLogger("ingle")

Reread = Callable[[], Serving]
"""What to serve from now on. Blocks; raises StartupError, and then nothing changes."""

LIVE = frozenset(
    {"models", "model", "aliases", "accept_any_model", "memory_mb", "preload", "keep_alive"}
    | {"swap_seconds", "ctx", "slots", "threads", "gpu_layers", "target_step_ms"}
    | {
        "prefix_cache_mb",
        "disk_cache_mb",
        "cache_dir",
        "watchdog_seconds",
        "api_key",
        "api_key_file",
        "key_max_requests",
    }
    | {"key_tokens_per_minute", "max_waiting", "queue_seconds", "request_seconds"}
    | {"max_body_bytes", "strict_params", "log_level"}
)
"""Settings that hold as soon as they are read. Models load anew for those that concern them."""


class Reloaded(Struct, frozen=True):
    """Names of settings that changed; models; and settings that hold only after a restart."""

    changed: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    needs_restart: tuple[str, ...]


class Reloader:
    def __init__(
        self,
        serving: Serving,
        reread: Reread,
        state: ApiState,
        pool: ModelPool,
        exporter: Exporter,
        sampling: dict[str, dict[str, float]],
    ) -> None:
        """`sampling` is what services look the recommended one up in."""
        self._serving = serving
        self._start = serving.settings
        self._reread = reread
        self._state = state
        self._pool = pool
        self._exporter = exporter
        self._sampling = sampling
        self._one = asyncio.Lock()
        self._asked: asyncio.Task[None] | None = None

    def on_hangup(self) -> None:
        self._asked = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        with contextlib.suppress(StartupError):
            await self.reload()

    async def reload_and_tell(self) -> dict[str, Any]:
        return structs.asdict(await self.reload())

    async def reload(self) -> Reloaded:
        """Raises StartupError; then all is as it was."""
        async with self._one:
            try:
                return self._apply(await asyncio.to_thread(self._reread))
            except StartupError as error:
                log.error("the configuration is not reloaded: %s", error.message)
                raise

    def _apply(self, serving: Serving) -> Reloaded:
        before, settings = self._serving.settings, serving.settings
        names = list(serving.models)
        check_aliases(settings.aliases, names)
        keys, models = load_keys(settings), armed(serving)
        since = _different(self._start, settings)
        fixed = {name for name in since if name not in LIVE}
        if bool(keys) != bool(self._state.keys):
            fixed |= {name for name in since if name.startswith("api_key")}
        else:
            self._state.keys.change(keys)
        self._change_limits(settings)
        self._sampling.clear()
        self._sampling.update(serving.sampling)
        self._exporter.count(names)
        served = set(self._pool.names())
        self._pool.reconfigure(models, serving.pool)
        self._state.models.change(settings.aliases, accept_any=settings.accept_any_model)
        logging.getLogger("ingle").setLevel(settings.log_level.upper())
        self._serving = serving
        reloaded = Reloaded(
            changed=tuple(sorted((_different(before, settings) & LIVE) - fixed)),
            added=tuple(name for name in names if name not in served),
            removed=tuple(sorted(served - set(names))),
            needs_restart=tuple(sorted(fixed)),
        )
        log.info("the configuration is reloaded", extra=structs.asdict(reloaded))
        return reloaded

    def _change_limits(self, settings: Settings) -> None:
        self._state.admission.change(
            settings.max_waiting,
            queue_seconds=settings.queue_seconds,
            request_seconds=settings.request_seconds,
        )
        self._state.admission.quotas.change(
            settings.key_max_requests, settings.key_tokens_per_minute
        )
        self._state.rules.max_body_bytes = settings.max_body_bytes
        self._state.rules.strict_params = settings.strict_params


def armed(serving: Serving) -> Mapping[str, PoolModel]:
    """With the faults that a variable wants of the engines, where that is allowed."""
    wanted = os.environ.get(FAULTS_VARIABLE, "")
    configs = {name: model.engine for name, model in serving.models.items()}
    engines = faults.arm(configs, wanted, allowed=serving.settings.fault_injection)
    return {
        name: structs.replace(model, engine=engines[name]) for name, model in serving.models.items()
    }


def _different(before: Settings, after: Settings) -> set[str]:
    return {
        name for name in type(after).model_fields if getattr(before, name) != getattr(after, name)
    }
