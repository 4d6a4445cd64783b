"""The OpenAI routes, joined: what the app serves and what API.md describes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from server.schemas.errors import ERROR_SCHEMA

from . import chat, completions, embeddings, models, rerank, tokens

_ERROR: dict[str, Any] = {
    "description": "An error; see API.md",
    "content": {"application/json": {"schema": ERROR_SCHEMA}},
}


def openai_routes() -> APIRouter:
    joined = APIRouter(responses={"4XX": _ERROR, "5XX": _ERROR})
    for part in (chat, completions, embeddings, rerank, models, tokens):
        joined.include_router(part.router)
    return joined
