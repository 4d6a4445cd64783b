"""The models of this server: loaded when they are asked for, kept while memory allows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from server.core.config import PoolConfig, PoolModel
from server.core.errors import (
    Conflict,
    EngineDown,
    OutOfMemory,
    ShuttingDown,
    StartupError,
)
from server.core.stats import ModelStatus, StatsSink
from server.core.types import ModelInfo, ModelKind

from .pooled import PooledEngine
from .process import EngineProcess, reason_of
from .replicas import Make, Replicas
from .residency import Load, Residency, Resident, State
from .roster import Roster
from .standing import not_loadable, status_of, still_loading, too_large
from .waiters import Waiters

log = logging.getLogger("ingle.engine")

_AFTER_BUG_SECONDS = 1.0


class ModelPool:
    """See `EnginePool`. One task begins loads and unloads, as `Residency` says.

    `available` gives the bytes of memory that nobody on this machine has taken.
    """

    def __init__(
        self,
        models: Mapping[str, PoolModel],
        config: PoolConfig,
        stats: StatsSink,
        *,
        make: Make = EngineProcess,
        available: Callable[[], int] = lambda: sys.maxsize,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stats = stats
        self._make = make
        self._available = available
        self._clock = clock
        self._residency = Residency((), config.memory_bytes, patience=config.swap_seconds)
        self._roster = Roster(self._residency, self._use)
        self._roster.serve(models)
        self._waiters = Waiters(self._residency)
        self._moved: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Event()
        self._tending: asyncio.Task[None] | None = None
        self._loads: set[asyncio.Task[None]] = set()
        self._unloads: set[asyncio.Task[None]] = set()
        self._started = self._stopped = False

    async def start(self) -> None:
        """Load what is to be there from the start and fits together; the first one in any case.

        Raises the StartupError of the first that cannot be loaded.
        """
        self._tending = asyncio.create_task(self._tend(), name="pool")
        wanted = [engine for engine in self._roster.served if engine.model.preload]
        for engine in wanted:
            if engine is wanted[0] or self._residency.fits_now(engine.name):
                await self._preload(engine)
            else:
                log.info("it is loaded when asked for: memory", extra={"model": engine.name})
        self._started = True

    async def _preload(self, engine: PooledEngine) -> None:
        if not self._residency.fits_ever(engine.name):
            raise OutOfMemory(f"{too_large(self._residency[engine.name])}; choose a smaller one")
        try:
            async with self._use(engine, None, preload=True):
                pass
        except EngineDown as error:
            raise error.__cause__ or error from None

    async def stop(self) -> None:
        """What runs ends with an error of its own; engines keep what they can."""
        self._stopped = True
        for task in (*self._loads, *filter(None, [self._tending])):
            task.cancel()
        tasks = (*self._loads, *self._unloads, *filter(None, [self._tending]))
        await asyncio.gather(*tasks, return_exceptions=True)
        self._waiters.refuse_all(ShuttingDown("The server is shutting down."))
        loaded = [engine.replicas for engine in self._roster if engine.replicas is not None]
        await asyncio.gather(*(replicas.stop(final=True) for replicas in loaded))

    def names(self) -> Sequence[str]:
        return [engine.name for engine in self._roster.served]

    def __contains__(self, name: object) -> bool:
        return name in self._roster

    def engines(self) -> Sequence[PooledEngine]:
        return self._roster.served

    @property
    def slots(self) -> int:
        """Of what is in memory: how many sequences (inputs, for vectors) run at once."""
        return sum(info.slots for info in self._infos())

    @property
    def tokens(self) -> int:
        """What those slots hold together."""
        return sum(info.slots * info.context for info in self._infos())

    def _infos(self) -> Iterator[ModelInfo]:
        for engine in self._roster:
            if engine.replicas is not None:
                yield from engine.replicas.infos

    @property
    def ready(self) -> bool:
        """Whether every model that is in memory answers, and what was to be there is."""
        return self._started and all(replicas.ready for replicas in self._loaded())

    @property
    def progressing(self) -> bool:
        """Whether any engine serves, or is about to; none need be in memory."""
        loaded = list(self._loaded())
        return not loaded or any(replicas.progressing for replicas in loaded)

    def _loaded(self) -> Iterator[Replicas]:
        for resident in self._residency:
            replicas = self._roster.find(resident.name).replicas
            if resident.state is State.LOADED and replicas is not None:
                yield replicas

    def get(self, name: str, kind: ModelKind = "generate") -> PooledEngine:
        del kind
        return self._roster.get(name)

    # What its operator does

    def status(self, name: str) -> ModelStatus:
        """Raises ModelNotFound."""
        return status_of(self.get(name), self._residency[name], self._clock())

    @property
    def memory(self) -> tuple[int, int]:
        """Bytes: what all may take together, and what those in memory do."""
        return self._residency.budget, self._residency.taken

    async def load(self, name: str, keep: float | None = None) -> None:
        """Wait until it is in memory; what failed before is tried at once. Raises EngineDown."""
        engine, resident = self.get(name), self._residency[name]
        resident.cools_until = 0.0
        await engine.load(keep)

    async def unload(self, name: str) -> None:
        """Wait until it is out of memory. Raises Conflict for one that is pinned."""
        self.get(name)
        resident = self._residency[name]
        if resident.pinned:
            raise Conflict(f"The model {name} is pinned: it stays in memory.", param="model")
        if resident.state is not State.ABSENT:
            self._residency.dismiss(name)
            moved = self._moved.setdefault(name, asyncio.Event())
            self._changed.set()
            await moved.wait()

    def reconfigure(self, models: Mapping[str, PoolModel], config: PoolConfig) -> None:
        """Serve these from now on, as `Roster.serve` says; no request is lost for it."""
        self._residency.resize(config.memory_bytes, config.swap_seconds)
        self._roster.serve(models)
        self._changed.set()

    # What requests do

    @asynccontextmanager
    async def _use(
        self, engine: PooledEngine, keep: float | None, *, preload: bool = False
    ) -> AsyncIterator[Replicas]:
        """The model's engines, in memory until this is left. Raises EngineDown, ShuttingDown.

        `keep` is how long it then stays. Before the pool has started nobody waits for it.
        """
        name = engine.name
        self._roster.readopt(engine)
        if not (self._started or preload or self._residency[name].open):
            raise still_loading(engine)
        await self._enter(name)
        try:
            replicas = self._roster.find(name).replicas
            assert replicas is not None
            yield replicas
        finally:
            self._residency.leave(name, self._clock(), keep)
            if not self._residency[name].inside:
                self._changed.set()

    async def _enter(self, name: str) -> None:
        resident, now = self._residency[name], self._clock()
        if self._stopped:
            raise ShuttingDown("The server is shutting down.")
        if resident.open:
            self._residency.enter(name, now)
            return
        self._check_loadable(resident, now)
        self._changed.set()
        try:
            await self._waiters.turn(name, now)
        except asyncio.CancelledError:
            self._changed.set()
            raise

    def _check_loadable(self, resident: Resident, now: float) -> None:
        if resident.state is not State.ABSENT:
            return
        if now < resident.cools_until:
            raise not_loadable(self._roster.find(resident.name), resident, now)
        if not self._residency.fits_ever(resident.name):
            raise EngineDown(f"{too_large(resident)}. Choose a smaller one.")

    # What the pool does

    async def _tend(self) -> None:
        """Begin what is to be done, then wait until that may be something else."""
        while True:
            self._changed.clear()
            now = self._clock()
            try:
                due = self._look(now)
            except Exception:
                log.exception("a bug while models were moved")
                due = now + _AFTER_BUG_SECONDS
            wait = None if due is None else max(0.0, due - self._clock())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)

    def _look(self, now: float) -> float | None:
        """When to look again, if nothing happens; of the same moment, or what comes between this
        one and the next is missed."""
        for resident in self._residency.hopeless():  # since the settings or the sizes changed
            resident.waiting.clear()
            error = EngineDown(f"{too_large(resident)}. Choose a smaller one.")
            self._waiters.refuse(resident.name, error)
        for action in self._residency.decide(now, self._available):
            engine = self._roster.find(action.name)
            if isinstance(action, Load):
                _begin(self._load(engine), self._loads)
            else:
                _begin(self._unload(engine), self._unloads)
        self._roster.forget()
        for resident in self._residency:
            if resident.waiting and resident.open:
                self._waiters.let_in(resident.name, now)
        return self._residency.due(now)

    async def _load(self, engine: PooledEngine) -> None:
        started, model = self._clock(), engine.model
        replicas = Replicas(engine.name, model.engine, model.replicas, self._stats, self._make)
        engine.replicas = replicas
        log.info("loading a model", extra={"model": engine.name})
        try:
            await replicas.start()
        except StartupError as error:
            engine.replicas = None
            self._failed(engine, error)
        except Exception as error:
            log.exception("a bug while a model was loaded", extra={"model": engine.name})
            engine.replicas = None
            with contextlib.suppress(Exception):  # it may have the same one
                await replicas.stop()
            self._failed(engine, StartupError(f"internal error: {type(error).__name__}"))
        except BaseException:
            await replicas.stop()
            raise
        else:
            engine.why, now = "", self._clock()
            if not engine.changed:
                engine.proven = None
            self._residency.loaded(engine.name, replicas.bytes, now - started, now)
            told = {"model": engine.name, "seconds": round(now - started, 1)}
            log.info("a model is loaded", extra=told)
            self._waiters.let_in(engine.name, now)
            if engine.changed or self._roster.is_gone(engine):
                self._residency.dismiss(engine.name)
        self._changed.set()

    def _failed(self, engine: PooledEngine, error: StartupError) -> None:
        self._stats.on_load_failed(engine.name)
        told = {"model": engine.name, "reason": error.message}
        if engine.changed:
            log.error("a model cannot be loaded as it was; it has changed since", extra=told)
            self._residency.unloaded(engine.name)
            self._over(engine)
            return
        if self._roster.revert(engine):
            log.error("a model cannot be loaded as it is now; it stays as it was", extra=told)
            self._residency.unloaded(engine.name)
            self._over(engine)
            return
        log.error("a model cannot be loaded", extra=told)
        engine.why = reason_of(error)
        resident, now = self._residency[engine.name], self._clock()
        self._residency.failed(engine.name, now)
        down = not_loadable(engine, resident, now)
        down.__cause__ = error
        self._waiters.refuse(engine.name, down)
        self._over(engine)

    async def _unload(self, engine: PooledEngine) -> None:
        replicas = engine.replicas
        assert replicas is not None and engine.loaded is not None
        log.info("unloading a model", extra={"model": engine.name})
        engine.replicas = None
        try:
            await replicas.stop()
            self._stats.on_unload(engine.name)
        except Exception:
            log.exception("a bug while a model was unloaded", extra={"model": engine.name})
        finally:
            self._residency.unloaded(engine.name)
            self._over(engine)
            self._changed.set()

    def _over(self, engine: PooledEngine) -> None:
        """It is out of memory: who waited for that is told, and what changed meanwhile holds."""
        moved = self._moved.pop(engine.name, None)
        if moved is not None:
            moved.set()
        self._roster.settle(engine)


def _begin(work: Coroutine[Any, Any, None], running: set[asyncio.Task[None]]) -> None:
    task = asyncio.create_task(work)
    running.add(task)
    task.add_done_callback(running.discard)
