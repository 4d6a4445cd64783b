"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request

from server.core.errors import ModelLoading
from server.core.protocol import Engine
from server.core.types import ModelInfo
from server.schemas.models import model_body, models_body

from .auth import require_key
from .state import state_of

router = APIRouter(dependencies=[Depends(require_key)])


@router.get("/models")
async def list_models(request: Request) -> dict[str, Any]:
    pool = state_of(request).pool
    return models_body([_body(request, pool.get(name)) for name in pool.names()])


@router.get("/models/{model_id:path}")
async def retrieve_model(request: Request, model_id: str) -> dict[str, Any]:
    return _body(request, state_of(request).pool.get(model_id))


def _body(request: Request, engine: Engine) -> dict[str, Any]:
    return model_body(engine.name, state_of(request).started, _info(engine))


def _info(engine: Engine) -> ModelInfo | None:
    try:
        return engine.info
    except ModelLoading:
        return None
