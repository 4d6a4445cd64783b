"""/admin: the models in memory, the requests inside, and the configuration, for the operator."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from server.core.errors import InvalidRequest, RequestNotFound, StartupError
from server.schemas.admin import LoadRequest, ModelRequest, PullRequest, status_body

from .admin_auth import require_admin
from .body import json_body, openapi_body
from .errors import CLIENT_GONE
from .inside import unless_gone
from .sse import EventStream, until_done
from .state import Administration, state_of
from .summary import summary_of

router = APIRouter(prefix="/admin", dependencies=[Depends(require_admin)])


@router.get("/models")
async def list_models(request: Request) -> dict[str, Any]:
    """Every model with its state, memory, replicas, requests and when it leaves memory."""
    admin = state_of(request).admin
    budget, used = admin.pool.memory
    return {
        "object": "list",
        "data": [_entry(request, name) for name in admin.pool.names()],
        "memory": {"budget_bytes": budget, "used_bytes": used},
    }


@router.post("/models/load", openapi_extra=openapi_body(LoadRequest))
async def load_model(
    request: Request, body: Annotated[LoadRequest, Depends(json_body(LoadRequest))]
) -> Any:
    """The model, once it is in memory."""
    name = state_of(request).models.get(body.model).name
    if await unless_gone(request, _done(_admin(request).pool.load(name, body.keep()))) is None:
        return Response(status_code=CLIENT_GONE)
    return _entry(request, name)


@router.post("/models/unload", openapi_extra=openapi_body(ModelRequest))
async def unload_model(
    request: Request, body: Annotated[ModelRequest, Depends(json_body(ModelRequest))]
) -> Any:
    """The model, once it is out of memory: who uses it may end first, others wait."""
    name = state_of(request).models.get(body.model).name
    if await unless_gone(request, _done(_admin(request).pool.unload(name))) is None:
        return Response(status_code=CLIENT_GONE)
    return _entry(request, name)


@router.post("/models/pull", openapi_extra=openapi_body(PullRequest))
async def pull_model(
    request: Request, body: Annotated[PullRequest, Depends(json_body(PullRequest))]
) -> Response:
    """Fetches a model's file; a stream of how far that is. To be served it must be configured."""
    frames = until_done(_admin(request).pull(body.model), summary_of(request.scope))
    return EventStream(frames, lambda: b"")


@router.get("/requests")
async def list_requests(request: Request) -> dict[str, Any]:
    """Those inside and those that ended last: how far, how fast, and nothing of what they say."""
    admin = _admin(request)
    return {"object": "list", "data": admin.in_flight.listed(), "recent": admin.recent()}


@router.delete("/requests/{request_id}")
async def cancel_request(request: Request, request_id: str) -> dict[str, Any]:
    """Ends it; its client gets an error that says so."""
    if not _admin(request).in_flight.cancel(request_id):
        raise RequestNotFound(f"There is no request `{request_id[:100]}` inside.", param="id")
    return {"id": request_id, "cancelled": True}


@router.post("/reload")
async def reload(request: Request) -> dict[str, Any]:
    """Reads the configuration again. What is wrong with it changes nothing."""
    reload = _admin(request).reload
    if reload is None:
        raise InvalidRequest("This server has no configuration to read again.", param="")
    try:
        return await asyncio.shield(reload())
    except StartupError as error:
        raise InvalidRequest(error.message, param="", code="invalid_config") from None


def _admin(request: Request) -> Administration:
    return state_of(request).admin


def _entry(request: Request, name: str) -> dict[str, Any]:
    state = state_of(request)
    engine = state.models.get(name)
    aliases = [alias for alias, model in state.models.aliases().items() if model == name]
    return status_body(state.admin.pool.status(name), engine.facts, engine.loaded, aliases)


async def _done(work: Any) -> bool:
    await work
    return True
