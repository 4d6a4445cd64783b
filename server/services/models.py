"""Which engine a request means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.core.errors import ConfigError, InvalidRequest
from server.core.protocol import Engine, EnginePool
from server.core.types import ModelKind

_DOES: dict[ModelKind, tuple[str, str]] = {
    "generate": ("generates text", "/v1/chat/completions or /v1/completions"),
    "embed": ("makes embeddings", "/v1/embeddings"),
    "rerank": ("ranks documents", "/v1/rerank"),
}
"""What a model of each kind does, and where it is asked to."""


class NamedModels:
    """An `EnginePool` whose models have other names too: `aliases`, from alias to model.

    With `accept_any` every name is one, of the first model that does what is wanted.
    """

    def __init__(self, pool: EnginePool, aliases: Mapping[str, str], *, accept_any: bool) -> None:
        """Raises ConfigError, as `check_aliases`."""
        check_aliases(aliases, pool.names())
        self._pool = pool
        self.change(aliases, accept_any=accept_any)

    def change(self, aliases: Mapping[str, str], *, accept_any: bool) -> None:
        """From now on these, which were checked."""
        self._aliases = dict(aliases)
        self._accept_any = accept_any

    def names(self) -> Sequence[str]:
        return self._pool.names()

    def __contains__(self, name: object) -> bool:
        return name in self._pool

    def aliases(self) -> Mapping[str, str]:
        return self._aliases

    def get(self, name: str, kind: ModelKind = "generate") -> Engine:
        if self._accept_any and name not in self._aliases and name not in self.names():
            return self._pool.get(_able(self._pool, kind)[0])
        return self._pool.get(self._aliases.get(name, name))


def check_aliases(aliases: Mapping[str, str], names: Sequence[str]) -> None:
    """Raises ConfigError for an alias of nothing, or one that is a model's name."""
    for alias, model in aliases.items():
        if alias in names:
            raise ConfigError(f"the alias {alias} is the name of a model; choose another")
        if model not in names:
            raise ConfigError(
                f"the alias {alias} means {model}, which is not served; "
                f"choose from {', '.join(names)}"
            )


async def find_engine(pool: EnginePool, model: str | None, kind: ModelKind = "generate") -> Engine:
    """The named model's, or the only one of its kind when the request names none.

    One that was never loaded is loaded, so that its facts are known. Raises ModelNotFound,
    InvalidRequest for a model of another kind, and what `Engine.load` raises.
    """
    engine = _only(pool, kind) if model is None else pool.get(model, kind)
    if engine.kind != kind:
        raise InvalidRequest(
            f"The model {engine.name} {_DOES[engine.kind][0]}: ask it at {_DOES[engine.kind][1]}."
            f" For this endpoint choose a model that {_DOES[kind][0]}{_choice(pool, kind)}.",
            param="model",
            code="unsupported_value",
        )
    if engine.loaded is None:
        await engine.load()
    return engine


async def find_any(pool: EnginePool, model: str | None) -> Engine:
    """As `find_engine`, for what models of every kind do."""
    names = pool.names()
    if model is None and len(names) > 1:
        return await find_engine(pool, None)
    return pool.get(names[0] if model is None else model)


def _only(pool: EnginePool, kind: ModelKind) -> Engine:
    able = _able(pool, kind)
    if len(able) == 1:
        return pool.get(able[0], kind)
    raise InvalidRequest(
        f"Missing required parameter: 'model'. This server has {', '.join(pool.names())}.",
        param="model",
        code="missing_required_parameter",
    )


def _choice(pool: EnginePool, kind: ModelKind) -> str:
    names = [name for name in pool.names() if pool.get(name).kind == kind]
    return f"; this server has {', '.join(names)}" if names else ""


def _able(pool: EnginePool, kind: ModelKind) -> list[str]:
    """The models of the kind, else all."""
    names = list(pool.names())
    return [name for name in names if pool.get(name).kind == kind] or names
