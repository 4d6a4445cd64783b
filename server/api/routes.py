"""The OpenAI routes, joined: what the app serves and what API.md describes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

from server.schemas.errors import ERROR_SCHEMA

from . import chat, completions, embeddings, models, rerank, tokens
from .gate import asks_for_place

_ERROR: dict[str, Any] = {
    "description": "An error; see API.md",
    "content": {"application/json": {"schema": ERROR_SCHEMA}},
}


_ROUTERS = tuple(part.router for part in (chat, completions, embeddings, rerank, models, tokens))


def openai_routes() -> APIRouter:
    joined = APIRouter(responses={"4XX": _ERROR, "5XX": _ERROR})
    for router in _ROUTERS:
        joined.include_router(router)
    return joined


def gated_routes() -> dict[str, APIRoute]:
    """Those that ask for a place, by their paths with /v1 and without."""
    routes = [route for router in _ROUTERS for route in router.routes]
    asking = [route for route in routes if isinstance(route, APIRoute) and asks_for_place(route)]
    return {path: route for route in asking for path in (route.path, f"/v1{route.path}")}
