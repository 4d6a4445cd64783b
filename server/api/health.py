"""Health: alive (the process answers) apart from ready (a request would be served)."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from server.schemas.errors import error_body

from .state import state_of

router = APIRouter()


@router.get("/livez")
async def livez() -> dict[str, str]:
    """200: the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """200 when a request would be served, else 503."""
    state = state_of(request)
    if state.admission.closed:
        return JSONResponse({"status": "stopping"}, 503, headers={"connection": "close"})
    if state.ready():
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "starting"}, 503, headers={"retry-after": "2"})


@router.get("/health")
@router.get("/v1/health", include_in_schema=False)
async def health(request: Request) -> JSONResponse:
    """200 when ready, 503 while loading, as llama-server answers it."""
    state = state_of(request)
    if state.ready() and not state.admission.closed:
        return JSONResponse({"status": "ok"})
    message, code = ("Loading model", "model_loading")
    if state.admission.closed:
        message, code = ("Shutting down", "server_shutdown")
    body = error_body(message, "server_error", code=code)
    return JSONResponse(body, 503, headers={"retry-after": "2"})


PATHS = frozenset(route.path for route in router.routes if isinstance(route, APIRoute))
