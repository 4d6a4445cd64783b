"""Request bodies: content type, size, JSON, schema, in this order, each with its own error.

Annotations are evaluated: FastAPI could not resolve their names in a dependency that is an object.
"""

import asyncio
import re
import zlib
from typing import Any, Generic, TypeVar

from fastapi import Request
from pydantic import ValidationError

from server.core.errors import (
    BodyTooLarge,
    InvalidRequest,
    UnsupportedContentType,
    UnsupportedEncoding,
)
from server.schemas.common import RequestBody

from .errors import invalid_body
from .state import state_of

Body = TypeVar("Body", bound=RequestBody)

OFF_LOOP_BYTES = 64 << 10
"""Larger bodies are parsed in a thread: everybody's stream waits for the event loop."""
MAX_PARTS = 100_000
"""Objects and lists of a body. Reading one takes microseconds in which no stream moves."""
MAX_QUOTES = 2_000_000
"""Beyond so many they are not told apart from braces in texts."""
IGNORED = "ingle.ignored"
"""Where the names of ignored fields stand in the request's scope."""

REFERENCE = "#/components/schemas/{model}"

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""zlib's `wbits` of a content encoding: 16 more than the window means a gzip header."""


class JsonBody(Generic[Body]):
    """A dependency that reads and validates the body as `schema`."""

    def __init__(self, schema: type[Body]) -> None:
        self.schema = schema

    async def __call__(self, request: Request) -> Body:
        _check_content_type(request.headers.get("content-type", ""))
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity" and encoding not in _WINDOW:
            raise _unsupported_encoding(encoding)
        most = state_of(request).max_body_bytes
        raw = await _read(request, most)
        if encoding in _WINDOW:
            raw = await asyncio.to_thread(_inflated, raw, _WINDOW[encoding], most)
        if len(raw) > OFF_LOOP_BYTES:
            body = await asyncio.to_thread(_validated, self.schema, raw)
        else:
            body = _validated(self.schema, raw)
        if state_of(request).strict_params:
            body.check_known()
        note_ignored(request, body.ignored_fields())
        return body


def note_ignored(request: Request, names: list[str]) -> None:
    """For the header that names them."""
    if names:
        request.scope.setdefault(IGNORED, []).extend(names)


def json_body(schema: type[Body]) -> JsonBody[Body]:
    return JsonBody(schema)


def _validated(schema: type[Body], raw: bytes) -> Body:
    _check_parts(raw)
    try:
        return schema.model_validate_json(raw)
    except ValidationError as error:
        raise invalid_body(error) from None


def _check_parts(raw: bytes) -> None:
    if _parts(raw) <= MAX_PARTS:
        return
    if raw.count(b'"') > MAX_QUOTES or _parts(_STRING.sub(b"", raw)) > MAX_PARTS:
        raise BodyTooLarge(
            f"The request body holds over {MAX_PARTS} objects and lists, this server's limit."
        )


def _parts(raw: bytes) -> int:
    return raw.count(b"{") + raw.count(b"[")


def _check_content_type(given: str) -> None:
    """Only JSON: a form or text body needs no CORS preflight, so any web page could send one."""
    if given.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedContentType(
            f"Unsupported content type: '{given[:100]}'. This API method only accepts"
            " 'application/json' requests, but you specified something else. Set the header"
            " Content-Type: application/json."
        )


async def _read(request: Request, most: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise _too_large(most)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _inflated(raw: bytes, window: int, most: int) -> bytes:
    """At most `most` bytes, whatever a few compressed ones would grow to."""
    inflate = zlib.decompressobj(window)
    try:
        body = inflate.decompress(raw, most + 1)
    except zlib.error:
        raise _not_compressed() from None
    if len(body) > most:
        raise _too_large(most)
    if not inflate.eof:
        raise _not_compressed()
    return body


def _too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than this server's limit of {most} bytes.")


def _unsupported_encoding(encoding: str) -> UnsupportedEncoding:
    return UnsupportedEncoding(
        f"Unsupported content encoding: '{encoding[:100]}'. Send the body as it is, or with gzip."
    )


def _not_compressed() -> InvalidRequest:
    return InvalidRequest(
        "We could not parse the JSON body of your request: it is not what the header"
        " Content-Encoding says.",
        code="",
    )


def openapi_body(schema: type[RequestBody]) -> dict[str, Any]:
    """The request body for the OpenAPI document, which cannot see through the dependency."""
    document = schema.model_json_schema(ref_template=REFERENCE)
    document.pop("$defs", None)  # `openapi.Documented` puts them where the references point
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": document}}}
    }
