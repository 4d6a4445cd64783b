"""Which models are served, and which are not any more but still used by who came before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from server.core.config import PoolModel
from server.core.errors import ModelNotFound

from .pooled import PooledEngine, Use
from .residency import Residency, Resident, State


class Roster:
    """Every model on it has its resident in `residency`."""

    def __init__(self, residency: Residency, use: Use) -> None:
        self._residency = residency
        self._use = use
        self._served: dict[str, PooledEngine] = {}
        self._gone: dict[str, PooledEngine] = {}

    def __iter__(self) -> Iterator[PooledEngine]:
        """Those that are served no more, too."""
        return iter([*self._served.values(), *self._gone.values()])

    def __contains__(self, name: object) -> bool:
        return name in self._served

    @property
    def served(self) -> list[PooledEngine]:
        return list(self._served.values())

    def get(self, name: str) -> PooledEngine:
        """One that is served. Raises ModelNotFound."""
        engine = self._served.get(name)
        if engine is None:
            raise ModelNotFound(
                f"The model `{name[:100]}` does not exist or you do not have access to it."
                f" Available: {', '.join(self._served)}."
            )
        return engine

    def find(self, name: str) -> PooledEngine:
        return self._served.get(name) or self._gone[name]

    def is_gone(self, engine: PooledEngine) -> bool:
        return engine.name in self._gone

    def serve(self, models: Mapping[str, PoolModel]) -> None:
        """These, in this order. What is loaded in another way, or served no more, leaves memory
        once it is idle; whoever came before is served by what there was."""
        for name in [name for name in self._served if name not in models]:
            self._gone[name] = self._served.pop(name)
            self._dismiss(self._residency[name])
        self._served = {name: self._as(name, model) for name, model in models.items()}

    def _as(self, name: str, model: PoolModel) -> PooledEngine:
        engine = self._served.get(name)
        if engine is None and (engine := self._gone.pop(name, None)) is not None:
            self._welcome_back(self._residency[name], model)
        if engine is None:
            self._residency.add(Resident(name, model.bytes, model.keep, model.pin))
            return PooledEngine(name, model, self._use)
        if engine.model != model:
            self._change(engine, model)
        return engine

    def _welcome_back(self, resident: Resident, model: PoolModel) -> None:
        """It was taken out, and is still there for those who came before."""
        resident.keep, resident.pinned = model.keep, model.pin
        resident.dismissed = resident.draining = False

    def _change(self, engine: PooledEngine, model: PoolModel) -> None:
        resident = self._residency[engine.name]
        resident.keep, resident.pinned = model.keep, model.pin
        before, engine.model = engine.model, model
        if (before.engine, before.replicas) == (model.engine, model.replicas):
            return
        was_loaded = engine.replicas is not None and engine.replicas.loaded is not None
        if was_loaded and not engine.changed:  # else `before` was never tried
            engine.proven = before
        engine.why, resident.cools_until = "", 0.0
        engine.changed = True
        if resident.state is State.ABSENT:
            self.settle(engine)
        self._dismiss(resident)

    def revert(self, engine: PooledEngine) -> bool:
        """Whether it is again as it was when it could be loaded, after it could not."""
        if engine.proven is None:
            return False
        engine.model, engine.proven = engine.proven, None
        resident = self._residency[engine.name]
        resident.keep, resident.pinned = engine.model.keep, engine.model.pin
        engine.changed = True
        return True

    def settle(self, engine: PooledEngine) -> None:
        """It is out of memory: what changed of it holds from now on."""
        if engine.changed:
            self._residency[engine.name].expect(engine.model.bytes)
            engine.changed = False

    def readopt(self, engine: PooledEngine) -> None:
        """One that a request found and that was taken out since is there for it again."""
        if engine.name not in self._residency:
            self._gone[engine.name] = engine
            self._residency.add(Resident(engine.name, engine.model.bytes))

    def forget(self) -> None:
        """Those that are gone, and that nobody waits for."""
        for name in list(self._gone):
            resident = self._residency[name]
            if resident.state is State.ABSENT and not resident.waiting:
                del self._gone[name]
                self._residency.remove(name)

    def _dismiss(self, resident: Resident) -> None:
        """One that is being loaded serves those that wait for it first; the pool looks then."""
        if resident.state is State.LOADED:
            self._residency.dismiss(resident.name)
