"""Which engine a request means."""

from __future__ import annotations

import contextlib

from server.core.errors import InvalidRequest, ModelLoading
from server.core.protocol import Engine, EnginePool
from server.core.types import ModelKind

_DOES: dict[ModelKind, tuple[str, str]] = {
    "generate": ("generates text", "/v1/chat/completions or /v1/completions"),
    "embed": ("makes embeddings", "/v1/embeddings"),
    "rerank": ("ranks documents", "/v1/rerank"),
}
"""What a model of each kind does, and where it is asked to."""


def find_engine(pool: EnginePool, model: str | None, kind: ModelKind = "generate") -> Engine:
    """The named model's, or the only one of its kind when the request names none.

    Raises ModelNotFound, and InvalidRequest for a model of another kind.
    """
    if model is None:
        return _only(pool, kind)
    engine = pool.get(model)
    found = engine.info.kind
    if found != kind:
        raise InvalidRequest(
            f"The model {engine.name} {_DOES[found][0]}: ask it at {_DOES[found][1]}. For this"
            f" endpoint choose a model that {_DOES[kind][0]}{_choice(pool, kind)}.",
            param="model",
            code="unsupported_value",
        )
    return engine


def _only(pool: EnginePool, kind: ModelKind) -> Engine:
    names = pool.names()
    able = _of_kind(pool, kind)
    if len(names) == 1 or len(able) == 1:
        return find_engine(pool, (able or names)[0], kind)
    raise InvalidRequest(
        f"Missing required parameter: 'model'. This server has {', '.join(names)}.",
        param="model",
        code="missing_required_parameter",
    )


def _choice(pool: EnginePool, kind: ModelKind) -> str:
    names = _of_kind(pool, kind)
    return f"; this server has {', '.join(names)}" if names else ""


def _of_kind(pool: EnginePool, kind: ModelKind) -> list[str]:
    """Of the models that are loaded; of others the kind is not known."""
    found = []
    for name in pool.names():
        with contextlib.suppress(ModelLoading):
            if pool.get(name).info.kind == kind:
                found.append(name)
    return found
