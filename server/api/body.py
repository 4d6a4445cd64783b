"""Request bodies: content type, size, JSON, schema, in this order, each with its own error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import ValidationError

from server.core.errors import BodyTooLarge, UnsupportedContentType
from server.schemas.common import RequestBody

from .errors import invalid_body
from .state import state_of

Body = TypeVar("Body", bound=RequestBody)

OFF_LOOP_BYTES = 64 << 10
"""Larger bodies are parsed in a thread: everybody's stream waits for the event loop."""


def json_body(schema: type[Body]) -> Callable[[Request], Awaitable[Body]]:
    """A dependency that reads and validates the body as `schema`."""

    async def read(request: Request) -> Body:
        _check_content_type(request.headers.get("content-type", ""))
        raw = await _read(request, state_of(request).max_body_bytes)
        if len(raw) > OFF_LOOP_BYTES:
            return await asyncio.to_thread(_validated, schema, raw)
        return _validated(schema, raw)

    return read


def _validated(schema: type[Body], raw: bytes) -> Body:
    try:
        return schema.model_validate_json(raw)
    except ValidationError as error:
        raise invalid_body(error) from None


def _check_content_type(given: str) -> None:
    """Only JSON: a form or text body needs no CORS preflight, so any web page could send one."""
    if given.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedContentType(
            f"Unsupported content type: '{given[:100]}'. This API method only accepts"
            " 'application/json' requests, but you specified something else. Set the header"
            " Content-Type: application/json."
        )


async def _read(request: Request, most: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise BodyTooLarge(
                f"The request body is larger than this server's limit of {most} bytes."
            )
    return bytes(body)


def openapi_body(schema: type[RequestBody]) -> dict[str, Any]:
    """The request body for the OpenAPI document, which cannot see through the dependency."""
    content = {"application/json": {"schema": schema.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}
