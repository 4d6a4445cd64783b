"""Request bodies: content type, size, JSON, schema, in this order, each with its own error.

Annotations are evaluated: FastAPI could not resolve their names in a dependency that is an object.
"""

import asyncio
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
from .inside import place_of
from .json_limits import check_json
from .state import state_of

Body = TypeVar("Body", bound=RequestBody)

OFF_LOOP_BYTES = 64 << 10
"""Larger bodies are parsed in a thread, one at a time: everybody's stream waits for the event loop,
and the event loop for the interpreter."""
IGNORED = "ingle.ignored"
"""Where the names of ignored fields stand in the request's scope."""

REFERENCE = "#/components/schemas/{model}"

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
        most = state_of(request).rules.max_body_bytes
        raw = await _read(request, most)
        if encoding in _WINDOW:
            raw = await asyncio.to_thread(_inflated, raw, _WINDOW[encoding], most)
            place_of(request).read(len(raw))
        strict = state_of(request).rules.strict_params
        if len(raw) > OFF_LOOP_BYTES:
            async with state_of(request).large_body:
                read = await asyncio.to_thread(_read_body, self.schema, raw, strict)
        else:
            read = _read_body(self.schema, raw, strict)
        body, ignored = read
        note_ignored(request, ignored)
        return body


def note_ignored(request: Request, names: list[str]) -> None:
    """For the header that names them."""
    if names:
        request.scope.setdefault(IGNORED, []).extend(names)


def json_body(schema: type[Body]) -> JsonBody[Body]:
    return JsonBody(schema)


def _read_body(schema: type[Body], raw: bytes, strict: bool) -> tuple[Body, list[str]]:
    """The body, and the names of its fields that are ignored."""
    check_json(raw)
    try:
        body = schema.model_validate_json(raw)
    except ValidationError as error:
        raise invalid_body(error) from None
    if strict:
        body.check_known()
    return body, body.ignored_fields()


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
    body, place = bytearray(), place_of(request)
    with place.working():
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise _too_large(most)
            place.read(len(body))
    place.has_body = True
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
    return BodyTooLarge(
        f"The request body is larger than this server's limit of {most} bytes, its setting"
        " max_body_bytes."
    )


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
