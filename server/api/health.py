"""Health: alive (the process answers) apart from ready (a request would be served)."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from server.schemas.errors import error_body

from .state import state_of

router = APIRouter()


@router.get("/livez")
async def livez() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    if state_of(request).ready():
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "starting"}, 503, headers={"retry-after": "2"})


@router.get("/health")
@router.get("/v1/health", include_in_schema=False)
async def health(request: Request) -> JSONResponse:
    """As llama-server answers it: what proxies, routers and containers already poll."""
    if state_of(request).ready():
        return JSONResponse({"status": "ok"})
    body = error_body("Loading model", "server_error", code="model_loading")
    return JSONResponse(body, 503, headers={"retry-after": "2"})


@router.get("/")
async def root() -> dict[str, str]:
    return {"name": "ingle", "docs": "/docs"}
