"""GET /v1/models and /v1/models/{id}. Clients pick from the list: an alias is an entry too."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request

from server.schemas.models import anthropic_model, anthropic_models, model_body, models_body

from .auth import require_key
from .state import state_of

router = APIRouter(dependencies=[Depends(require_key)])


@router.get("/models")
async def list_models(request: Request) -> dict[str, Any]:
    """The models served and their aliases, with context, size and capabilities."""
    models = state_of(request).models
    listed = [_body(request, name) for name in (*models.names(), *models.aliases())]
    return anthropic_models(listed) if _for_anthropic(request) else models_body(listed)


@router.get("/models/{model_id:path}")
async def retrieve_model(request: Request, model_id: str) -> dict[str, Any]:
    """One of them."""
    body = _body(request, model_id)
    return anthropic_model(body) if _for_anthropic(request) else body


def _for_anthropic(request: Request) -> bool:
    return "anthropic-version" in request.headers


def _body(request: Request, name: str) -> dict[str, Any]:
    models = state_of(request).models
    engine = models.get(name)
    aliases = [alias for alias, model in models.aliases().items() if model == engine.name]
    shown = name if name in aliases else engine.name
    state = state_of(request).admin.pool.status(engine.name).state
    created = state_of(request).started
    return model_body(shown, engine.name, created, engine.loaded, aliases, engine.facts, state)
