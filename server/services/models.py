"""Which engine a request means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.core.errors import ConfigError, InvalidRequest
from server.core.protocol import Engine, EnginePool


class NamedModels:
    """An `EnginePool` whose models have other names too: `aliases`, from alias to model.

    With `accept_any` every name is one, of the first model.
    """

    def __init__(self, pool: EnginePool, aliases: Mapping[str, str], *, accept_any: bool) -> None:
        """Raises ConfigError for an alias of nothing, or one that is a model's name."""
        self._pool = pool
        self._aliases = dict(aliases)
        self._accept_any = accept_any
        names = pool.names()
        for alias, model in self._aliases.items():
            if alias in names:
                raise ConfigError(f"the alias {alias} is the name of a model; choose another")
            if model not in names:
                raise ConfigError(
                    f"the alias {alias} means {model}, which is not served; "
                    f"choose from {', '.join(names)}"
                )

    def names(self) -> Sequence[str]:
        return self._pool.names()

    def aliases(self) -> Mapping[str, str]:
        return self._aliases

    def get(self, name: str) -> Engine:
        if self._accept_any and name not in self._aliases and name not in self.names():
            return self._pool.get(self.names()[0])
        return self._pool.get(self._aliases.get(name, name))


def find_engine(pool: EnginePool, model: str | None) -> Engine:
    """The named model's, or the only one when the request names none. Raises ModelNotFound."""
    if model is not None:
        return pool.get(model)
    names = pool.names()
    if len(names) == 1:
        return pool.get(names[0])
    raise InvalidRequest(
        f"Missing required parameter: 'model'. This server has {', '.join(names)}.",
        param="model",
        code="missing_required_parameter",
    )
