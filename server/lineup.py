"""From settings and checked model files to what the pool of engines is told."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from server.catalog import ResolvedModel
from server.core.config import (
    EngineConfig,
    ModelFacts,
    PoolConfig,
    PoolModel,
    RunnerConfig,
    SchedulerConfig,
    StoreConfig,
    Tuning,
)
from server.core.errors import StartupError
from server.engine.needs import Needs, allot
from server.llama.machine import available_memory, has_gpu_backend, usable_threads
from server.llama.shape import ELEMENT_BYTES
from server.settings import ModelOptions, Settings

LLAMA_RUNNER = "server.llama.runner:LlamaRunner"
LLAMA_EMBEDDER = "server.llama.embedder:LlamaEmbedder"

_KEPT_SHARE = 0.1
_KEPT_FREE, _LEAST_FREE = 0.05, 256 << 20
"""Of the memory that is free at the start, the share and the bytes that stay so."""


class Serving(Struct, frozen=True):
    """All that a server is told. `sampling` is the recommended one by model name."""

    settings: Settings
    models: Mapping[str, PoolModel]
    pool: PoolConfig = PoolConfig()
    sampling: Mapping[str, dict[str, float]] = {}


class Lineup(Struct, frozen=True):
    """`words` are the models' names in the settings, in the order of `models`."""

    settings: Settings
    words: tuple[str, ...]
    models: tuple[ResolvedModel, ...]
    tunings: Mapping[str, Tuning]

    def serving(self, budget: int, volatile: StoreConfig | None = None) -> Serving:
        """`budget` in bytes of memory, for all models together.

        `volatile` is where engines leave their prefixes when there is no place on disk.
        """
        store = self._store() or volatile
        if len(self.models) > 1 and store is not None and not store.lasting:
            budget -= store.bytes
        needs = {model.name: self._needs(model) for model in self.models}
        allotted = allot(needs, budget)
        models = {
            model.name: self._pool_model(model, needs[model.name], allotted[model.name], store)
            for model in self.models
        }
        pool = PoolConfig(memory_bytes=budget, swap_seconds=self.settings.swap_seconds)
        sampling = {model.name: model.sampling for model in self.models}
        return Serving(self.settings, models, pool, sampling)

    def _store(self) -> StoreConfig | None:
        size = self.settings.disk_cache_mb << 20
        return StoreConfig(str(self.settings.cache_dir.absolute()), size) if size else None

    def _pool_model(
        self, model: ResolvedModel, needs: Needs, allotted: int, store: StoreConfig | None
    ) -> PoolModel:
        settings, options, header = self.settings, self._options(model), model.header
        return PoolModel(
            engine=self._engine(model, allotted, store),
            facts=ModelFacts(
                kind=header.kind,
                architecture=header.architecture,
                quantisation=header.quantisation,
                parameters=header.parameters,
                size=header.size,
                context_train=header.context_length or 0,
                chats=header.chat_template,
            ),
            bytes=_estimated(needs, allotted) * options.replicas,
            keep=settings.keep_alive if options.keep_alive is None else options.keep_alive,
            pin=options.pin,
            preload=settings.preload if options.preload is None else options.preload,
            replicas=options.replicas,
        )

    def _engine(
        self, model: ResolvedModel, allotted: int, store: StoreConfig | None
    ) -> EngineConfig:
        settings, options = self.settings, self._options(model)
        tuning = self.tunings.get(model.name, Tuning())
        threads = options.threads or settings.threads or tuning.threads
        if threads is None and options.replicas > 1:
            threads = max(1, usable_threads() // options.replicas)
        layers = settings.gpu_layers if options.gpu_layers is None else options.gpu_layers
        return EngineConfig(
            runner=LLAMA_RUNNER if model.header.kind == "generate" else LLAMA_EMBEDDER,
            model=RunnerConfig(
                path=str(model.path),
                context=options.ctx or settings.ctx,
                slots=options.slots or settings.slots,
                threads=threads,
                gpu_layers=layers,
                memory_bytes=None if self._alone else allotted,
                micro_batch=tuning.micro_batch,
                flash_attention=tuning.flash_attention,
                kv_type=tuning.kv_type,
            ),
            scheduler=SchedulerConfig(
                target_step_ms=settings.target_step_ms,
                prefix_cache_bytes=settings.prefix_cache_mb << 20,
                watchdog_seconds=settings.watchdog_seconds,
            ),
            store=store if model.header.kind == "generate" else None,
        )

    @property
    def _alone(self) -> bool:
        """One engine with all the memory there is, however much that is when it is loaded."""
        if len(self.models) > 1 or self.settings.memory_mb is not None:
            return False
        return self._options(self.models[0]).replicas == 1

    def _needs(self, model: ResolvedModel) -> Needs:
        settings, options, header = self.settings, self._options(model), model.header
        element = ELEMENT_BYTES[self.tunings.get(model.name, Tuning()).kv_type]
        layers = settings.gpu_layers if options.gpu_layers is None else options.gpu_layers
        return Needs(
            weights=0 if layers and has_gpu_backend() else header.size,
            token_bytes=int(header.kv_width * element),
            context_train=header.context_length or Needs(0).context_train,
            kind=header.kind,
            context=options.ctx or settings.ctx,
            slots=options.slots or settings.slots,
            kept_bytes=settings.prefix_cache_mb << 20,
            replicas=options.replicas,
        )

    def _options(self, model: ResolvedModel) -> ModelOptions:
        return self.settings.options_of(self.words[self.models.index(model)], model.name)

    def unused_options(self) -> list[str]:
        """Names of tables that belong to no model that is served."""
        known = {*self.words, *(model.name for model in self.models)}
        return [name for name in self.settings.model if name not in known]


def budget_of(settings: Settings) -> int:
    """Bytes for all models: what is set, or what is free now but for a little."""
    if settings.memory_mb is not None:
        return settings.memory_mb << 20
    free = available_memory()
    return free - max(int(free * _KEPT_FREE), _LEAST_FREE)


def _estimated(needs: Needs, allotted: int) -> int:
    """The engine itself says why it cannot have what is asked for."""
    try:
        return needs.estimate(allotted)
    except StartupError:
        return max(allotted, needs.weights)


def kept_in_memory(settings: Settings, budget: int) -> int:
    """Bytes for prefixes of models that are out of memory, where none may be on disk."""
    return min(settings.prefix_cache_mb << 20, int(budget * _KEPT_SHARE))
