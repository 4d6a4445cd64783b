"""The engines of this server, by model name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from server.core.config import EngineConfig
from server.core.errors import ModelNotFound
from server.core.stats import StatsSink
from server.core.types import ModelInfo, ModelKind

from .process import EngineProcess, State


class ProcessPool:
    """One engine process a model, all loaded by `start`. See `EnginePool`."""

    def __init__(self, configs: Mapping[str, EngineConfig], stats: StatsSink) -> None:
        self._engines = {
            name: EngineProcess(name, config, stats) for name, config in configs.items()
        }

    async def start(self) -> None:
        """Raises the first StartupError; the other engines are stopped then."""
        try:
            for engine in self._engines.values():
                await engine.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        await asyncio.gather(*(engine.stop() for engine in self._engines.values()))

    def names(self) -> Sequence[str]:
        return list(self._engines)

    def engines(self) -> Sequence[EngineProcess]:
        return list(self._engines.values())

    @property
    def slots(self) -> int:
        """Of all engines that were loaded: how many sequences (inputs, for vectors) run at once."""
        return sum(info.slots for info in self._infos())

    @property
    def tokens(self) -> int:
        """What those slots hold together."""
        return sum(info.slots * info.context for info in self._infos())

    def _infos(self) -> Iterator[ModelInfo]:
        return (engine.loaded for engine in self._engines.values() if engine.loaded is not None)

    @property
    def ready(self) -> bool:
        return all(engine.ready for engine in self._engines.values())

    @property
    def progressing(self) -> bool:
        """Whether any engine serves, or is about to."""
        return any(engine.state is not State.FAILED for engine in self._engines.values())

    def get(self, name: str, kind: ModelKind = "generate") -> EngineProcess:
        del kind
        engine = self._engines.get(name)
        if engine is None:
            raise ModelNotFound(
                f"The model `{name[:100]}` does not exist or you do not have access to it."
                f" Available: {', '.join(self._engines)}."
            )
        return engine
