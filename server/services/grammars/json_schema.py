"""JSON in Lark: an inline expression, and the body fragments made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from server.core.errors import InvalidRequest

from .schema import rewritten

MAX_TEXT = 256_000

# Separators as templates write the calls of earlier turns (`tojson`), so that their tokens are the
# same; with no choice of whitespace most of it is forced. Without \uXXXX no name can be written in
# two ways, so none that has a schema of its own passes for another.
_OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
}


def json_schema_atom(schema: Mapping[str, Any] | bool, *, param: str, strict: bool = True) -> str:
    """A Lark expression for JSON that fits `schema`. Raises InvalidRequest naming the keyword that
    cannot be enforced; without `strict` such keywords are left out, as far as JSON is concerned."""
    text = json.dumps({"x-guidance": _OPTIONS, **rewritten(schema, param=param, strict=strict)})
    if len(text) > MAX_TEXT:
        raise InvalidRequest(
            f"Invalid JSON Schema at #: it is longer than {MAX_TEXT} characters.",
            param=param,
            code="invalid_json_schema",
        )
    return f"%json {text}"


def json_body(schema: Mapping[str, Any] | bool, *, param: str, strict: bool = True) -> str:
    return f"body: {json_schema_atom(schema, param=param, strict=strict)}\n"


def object_body() -> str:
    """Any JSON object."""
    return json_body({"type": "object"}, param="response_format")
