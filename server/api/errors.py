"""The one table from errors to HTTP, and the one from pydantic's words to OpenAI's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from server.core import errors
from server.core.errors import (
    BodyTooLarge,
    Conflict,
    DeadlineExceeded,
    IngleError,
    InvalidRequest,
    RateLimited,
    RequestCancelled,
    ShuttingDown,
    Unavailable,
    UnsupportedEncoding,
)
from server.schemas.errors import error_body

from .summary import summary_of

_STATUS: dict[type[IngleError], int] = {
    errors.InvalidRequest: 400,
    errors.UnsupportedContentType: 400,
    errors.MalformedRequest: 400,
    errors.Unauthorized: 401,
    errors.HostRefused: 403,
    errors.AdminRefused: 403,
    errors.ModelNotFound: 404,
    errors.RequestNotFound: 404,
    errors.RequestTimedOut: 408,
    errors.Conflict: 409,
    errors.RequestCancelled: 409,
    errors.BodyTooLarge: 413,
    errors.UnsupportedEncoding: 415,
    errors.RateLimited: 429,
    errors.HeadersTooLarge: 431,
    errors.EngineError: 500,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
}
CLIENT_GONE = 499
"""Nobody reads it; metrics and logs do (nginx's number for a client that closed the request)."""
_MOST_SHOWN = 64
_INTERNAL = error_body(
    "The server had an internal error while it processed your request.",
    "server_error",
    code="internal_error",
)


def status_of(error: IngleError) -> int:
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def code_of(error: Exception) -> str:
    """For logs: the code clients get, or the kind of error where it has none."""
    if not isinstance(error, IngleError):
        return "internal_error"
    return error.error_code or type(error).__name__


def body_of(error: Exception) -> dict[str, Any]:
    """The envelope of any error; what was not raised on purpose says nothing of itself."""
    if not isinstance(error, IngleError):
        return _INTERNAL
    kind = "server_error" if status_of(error) >= 500 else "invalid_request_error"
    if isinstance(error, RateLimited):
        kind = error.kind
    return error_body(error.message, kind, param=error.param, code=error.error_code)


def response_of(error: Exception) -> JSONResponse:
    if not isinstance(error, IngleError):
        return JSONResponse(_INTERNAL, 500, headers={"x-should-retry": "false"})
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable | RateLimited):
        headers |= _retry_after(error.retry_after)
    if isinstance(error, DeadlineExceeded | Conflict | RequestCancelled):
        headers["x-should-retry"] = "false"
    if isinstance(error, BodyTooLarge | UnsupportedEncoding | ShuttingDown):
        # Or the rest of the body would have to be read, or the next request refused too.
        headers["connection"] = "close"
    return JSONResponse(body_of(error), status_of(error), headers=headers)


def _retry_after(seconds: float) -> dict[str, str]:
    """Whole seconds for those that know no better, and exactly."""
    return {
        "retry-after": str(max(1, math.ceil(seconds))),
        "retry-after-ms": str(max(1, round(seconds * 1000))),
    }


def install(app: FastAPI) -> None:
    @app.exception_handler(IngleError)
    async def _ingle(request: Request, error: IngleError) -> JSONResponse:
        return _noted(request, error)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if request.method == "OPTIONS" and error.status_code == 405:
            return Response(status_code=204, headers=_allowed(error))
        return _routing_error(request, error)

    @app.exception_handler(RequestValidationError)
    async def _parameter(request: Request, error: RequestValidationError) -> JSONResponse:
        return _noted(request, _invalid_parameter(error))

    @app.exception_handler(ClientDisconnect)
    async def _gone(_: Request, __: ClientDisconnect) -> JSONResponse:
        return JSONResponse(None, CLIENT_GONE)


def _noted(request: Request, error: IngleError) -> JSONResponse:
    summary_of(request.scope).error = code_of(error)
    return response_of(error)


def _routing_error(request: Request, error: HTTPException) -> JSONResponse:
    target = f"{request.method} {request.scope['path'][:200]}"
    kind, code = "invalid_request_error", None
    message = str(error.detail)
    if error.status_code == 404:
        message = f"Invalid URL ({target})"
    elif error.status_code == 405:
        message, code = f"Method not allowed ({target})", "method_not_supported"
    body = error_body(message, kind, code=code)
    return JSONResponse(body, error.status_code, headers=_allowed(error))


def _allowed(error: HTTPException) -> dict[str, str]:
    """The headers of a routing error; every path takes OPTIONS, and HEAD where it takes GET."""
    headers = Headers(error.headers).mutablecopy()
    if allow := headers.get("allow"):
        more = ", HEAD, OPTIONS" if "GET" in allow else ", OPTIONS"
        headers["allow"] = allow + more
    return dict(headers)


def invalid_body(error: ValidationError) -> InvalidRequest:
    """The first thing wrong with a body, in OpenAI's words: what, where, what would be right."""
    first = _first(error)
    kind, context = first["type"], first.get("ctx", {})
    if kind == "json_invalid" or not first["loc"]:
        detail = context.get("error") or "it must be a JSON object"
        return _invalid(f"We could not parse the JSON body of your request: {detail}.", None, "")
    path = _path(first["loc"])
    if kind == "missing":
        return _invalid(
            f"Missing required parameter: '{path}'.", path, "missing_required_parameter"
        )
    if kind == "too_short" and context.get("field_type") == "List":
        return _invalid(f"Invalid '{path}': it must not be empty.", path, "empty_array")
    if kind == "too_long":
        return _invalid(_too_long(path, first), path, "array_above_max_length")
    limit = next((context[name] for name in ("le", "lt", "ge", "gt") if name in context), None)
    if limit is not None:
        return _out_of_range(path, kind, limit, first["input"])
    code = (
        "invalid_type" if kind.endswith(("_type", "_parsing", "_from_float")) else "invalid_value"
    )
    return _invalid(f"Invalid '{path}': {_within(first['msg'])}.", path, code)


def _invalid_parameter(error: RequestValidationError) -> InvalidRequest:
    """Of a path or a query; bodies are never FastAPI's to validate."""
    first = error.errors()[0]
    path = _path(first["loc"][1:])
    return InvalidRequest(f"Invalid '{path}': {_within(first['msg'])}.", param=path)


def _within(message: str) -> str:
    """As it stands in the middle of a sentence; what it quotes stays as it is."""
    return message[:1].lower() + message[1:]


def _first(error: ValidationError) -> ErrorDetails:
    """The first error that helps: of a list where text would do too, what is wrong in the list."""
    found = error.errors(include_url=False)
    return next(
        (e for e in found if e["type"] != "string_type" or not isinstance(e["input"], list)),
        found[0],
    )


def _invalid(message: str, param: str | None, code: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code=code)


def _too_long(path: str, error: ErrorDetails) -> str:
    most, given = error["ctx"]["max_length"], error["input"]
    if isinstance(given, dict):
        return f"Invalid '{path}': it has {len(given)} keys, more than the {most} that are allowed."
    length = error["ctx"].get("actual_length") or len(given)
    return (
        f"Invalid '{path}': array too long. Expected an array with maximum length {most}, but got"
        f" an array with length {length} instead."
    )


def _out_of_range(path: str, kind: str, limit: Any, given: Any) -> InvalidRequest:
    above = kind.startswith("less")
    number = "integer" if isinstance(limit, int) else "decimal"
    relation = {"less_than": "<", "less_than_equal": "<=", "greater_than": ">"}.get(kind, ">=")
    return _invalid(
        f"Invalid '{path}': {number} {'above maximum' if above else 'below minimum'} value."
        f" Expected a value {relation} {limit}, but got {_shown(given)} instead.",
        path,
        f"{number}_{'above_max' if above else 'below_min'}_value",
    )


def _shown(given: Any) -> str:
    shown = str(given)
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}…"


def _path(location: Sequence[int | str]) -> str:
    """`messages[1].content`; the names of union members, which pydantic adds, are left out."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.isidentifier() and step not in ("str", "int", "float", "bool"):
            path += f".{step}" if path else step
    return path
