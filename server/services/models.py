"""Which engine a request means."""

from __future__ import annotations

from server.core.errors import InvalidRequest
from server.core.protocol import Engine, EnginePool


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
