"""The engine processes of one model that is in memory, as many as it has replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from server.core.config import EngineConfig
from server.core.stats import ReplicaStatus, RequestRecord, StatsSink, StepStats
from server.core.types import EmbedRequest, GenerateRequest, ModelInfo

from .affinity import Affinity, blocks_of
from .process import EngineProcess

Make = Callable[[str, EngineConfig, StatsSink], EngineProcess]

_GAUGES = (
    "running",
    "waiting",
    "slots_busy",
    "slots_total",
    "kv_used",
    "kv_total",
    "snapshot_bytes",
    "resident_bytes",
)
"""Of StepStats: what the replicas have together."""


class Replicas:
    """Requests go where the beginning of their prompt was read, unless others are much idler."""

    def __init__(
        self,
        name: str,
        config: EngineConfig,
        count: int,
        stats: StatsSink,
        make: Make = EngineProcess,
    ) -> None:
        self._affinity = Affinity(count)
        together = _Together(stats, count, self._affinity)
        self._processes = [make(name, config, _Replica(together, i)) for i in range(count)]
        self._restarts = together.restarts
        self._busy = [0] * count

    async def start(self) -> None:
        """Load them all. Raises the first StartupError; the others are stopped then."""
        starting = [asyncio.ensure_future(process.start()) for process in self._processes]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for start in starting:
                start.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            await self.stop()
            raise

    async def stop(self, *, final: bool = False) -> None:
        """`final`: the server ends with them."""
        await asyncio.gather(*(process.stop(final=final) for process in self._processes))

    @property
    def ready(self) -> bool:
        """Whether any of them answers."""
        return any(process.ready for process in self._processes)

    @property
    def progressing(self) -> bool:
        return any(process.progressing for process in self._processes)

    @property
    def load_left(self) -> float:
        """Seconds until they should have loaded."""
        return max(process.load_left for process in self._processes)

    @property
    def loaded(self) -> ModelInfo | None:
        """Of one of them, once it has loaded."""
        return next((p.loaded for p in self._processes if p.loaded is not None), None)

    @property
    def infos(self) -> list[ModelInfo]:
        return [process.loaded for process in self._processes if process.loaded is not None]

    @property
    def bytes(self) -> int:
        """Measured: what they hold now they are loaded, and what they may keep of prefixes."""
        return sum(info.memory_bytes for info in self.infos)

    def status(self) -> tuple[ReplicaStatus, ...]:
        rows = zip(self._processes, self._busy, self._restarts, strict=True)
        return tuple(ReplicaStatus(p.ready, p.pid, busy, again) for p, busy, again in rows)

    @contextmanager
    def one(self, request: GenerateRequest | EmbedRequest | None = None) -> Iterator[EngineProcess]:
        """The process that `request` should go to, counted as its own until this is left."""
        blocks: list[int] = []
        if isinstance(request, GenerateRequest) and len(self._processes) > 1:
            blocks = blocks_of(request)
        replica = self._choose(blocks)
        self._affinity.note(replica, blocks)
        self._busy[replica] += 1
        try:
            yield self._processes[replica]
        finally:
            self._busy[replica] -= 1

    def _choose(self, blocks: list[int]) -> int:
        if len(self._processes) == 1:
            return 0
        ready = [i for i, process in enumerate(self._processes) if process.ready]
        able = ready or range(len(self._processes))
        slots = self.infos[0].slots if self.infos else 1
        return self._affinity.choose(blocks, self._busy, slots, able)


class _Together:
    """A StatsSink for each replica of a model, which tells another one of all of them as of one."""

    def __init__(self, stats: StatsSink, count: int, affinity: Affinity) -> None:
        self.stats = stats
        self.infos: dict[int, ModelInfo] = {}
        self.steps: dict[int, StepStats] = {}
        self.restarts = [0] * count
        self.affinity = affinity

    def load(self, model: str, replica: int, info: ModelInfo) -> None:
        self.infos[replica] = info
        together = replace(
            info,
            slots=sum(info.slots for info in self.infos.values()),
            resident_bytes=sum(info.resident_bytes for info in self.infos.values()),
        )
        self.stats.on_load(model, together)

    def restart(self, model: str, replica: int, reason: str) -> None:
        self.restarts[replica] += 1
        self.affinity.forget(replica)
        self.steps.pop(replica, None)
        self.stats.on_restart(model, reason)

    def step(self, model: str, replica: int, step: StepStats) -> None:
        self.steps[replica] = step
        if len(self.steps) > 1:
            sums = {name: sum(getattr(s, name) for s in self.steps.values()) for name in _GAUGES}
            step = replace(step, **sums)
        self.stats.on_step(model, step)


class _Replica:
    """See `_Together`."""

    def __init__(self, together: _Together, replica: int) -> None:
        self._together = together
        self._replica = replica

    def on_load(self, model: str, info: ModelInfo) -> None:
        self._together.load(model, self._replica, info)

    def on_restart(self, model: str, reason: str) -> None:
        self._together.restart(model, self._replica, reason)

    def on_step(self, model: str, stats: StepStats) -> None:
        self._together.step(model, self._replica, stats)

    def on_load_failed(self, model: str) -> None:
        self._together.stats.on_load_failed(model)

    def on_unload(self, model: str) -> None:
        self._together.stats.on_unload(model)

    def on_gap(self, model: str, seconds: float, tokens: int) -> None:
        self._together.stats.on_gap(model, seconds, tokens)

    def on_request(self, record: RequestRecord) -> None:
        self._together.stats.on_request(record)
