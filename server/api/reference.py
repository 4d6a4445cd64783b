"""`python -m server.api.reference` writes server/API.md from the routes and their schemas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.routing import RouteContext, iter_route_contexts

from server.schemas.common import IGNORED_INSIDE, RequestBody

from . import admin, health
from .catalogue import ERRORS, REQUEST_HEADERS, RESPONSE_HEADERS
from .openapi import body_schema
from .routes import openai_routes

PATH = Path(__file__).parents[1] / "API.md"
Row = Sequence[str]

_HEAD = """\
# API compatibility

What Ingle makes of each field of a request. Written by `python -m server.api.reference` from the
schemas that check the requests; a test fails when it is out of date.

- **honoured**: it does what its API says.
- **ignored**: it is accepted, changes nothing, and is named in the response header
  `x-ignored-params`. Fields that are not listed here are ignored too, and so are those inside
  others (`stream_options.x`); with the setting `strict_params` they are refused with
  `unknown_parameter`.
- **refused**: ignoring it would be a lie, so it is answered with 400 `unsupported_parameter`,
  unless its value asks for nothing.

`null` means the same as leaving a field out. Unknown fields inside messages and documents, and
unknown query parameters, are ignored silently.
"""
_METRICS = ("`GET /metrics`", "Prometheus metrics.")
_ADMIN = """\
The last group is for who looks after the server: with the setting `admin_key` it wants that key,
from anywhere; without, it answers this machine alone, and not through a proxy.
"""
_ERRORS = """\
Every error has the same body, `{"error": {"message", "type", "param", "code"}}`; `param` and
`code` are strings or null. `type` is `server_error` from status 500 on and `invalid_request_error`
below. Requests are checked in this order: route and method, key, room, content type, size, JSON,
fields, model, support, template, context and grammar. All of it happens before the headers of a
stream; an error after them is a `data:` frame with the same body, then `[DONE]`.
"""


def reference() -> str:
    """The whole text of API.md."""
    routes = iter_route_contexts(openai_routes().routes)
    openai = [context for context in routes if context.include_in_schema]
    admins = list(iter_route_contexts(_joined(admin.router).routes))
    parts = [
        _HEAD,
        "## Routes\n",
        "The first group wants the key, if the server has one, and is served without `/v1` too.",
        "`HEAD` works wherever `GET` does.\n",
        _table(("route", "what it does"), (_route(context, "/v1") for context in openai)),
        _table(("route", "what it does"), _public()),
        _ADMIN,
        _table(("route", "what it does"), (_route(context, "") for context in admins)),
    ]
    bodies = [(context, "/v1") for context in openai] + [(context, "") for context in admins]
    for context, prefix in bodies:
        if (schema := body_schema(context)) is not None:
            columns = ("field", "verdict", "accepts", "note")
            title = f"## `{_spelled(context, prefix)}`\n"
            parts += [title, _table(columns, (*_honoured(schema), *_others(schema)))]
    parts += ["## Errors\n", _ERRORS, _table(("status", "code", "when"), _errors())]
    for title, headers in (("Request", REQUEST_HEADERS), ("Response", RESPONSE_HEADERS)):
        rows = [(f"`{header.name}`", header.what) for header in headers]
        parts += [f"## {title} headers\n", _table(("header", "what it is"), rows)]
    return "\n".join(parts).rstrip() + "\n"


def _public() -> list[Row]:
    shown = (c for c in iter_route_contexts(_joined(health.router).routes) if c.include_in_schema)
    return [*(_route(context, "") for context in shown), _METRICS]


def _joined(router: APIRouter) -> APIRouter:
    joined = APIRouter()
    joined.include_router(router)
    return joined


def _route(context: RouteContext, prefix: str) -> Row:
    return f"`{_spelled(context, prefix)}`", str(context.description).partition("\n")[0]


def _spelled(context: RouteContext, prefix: str) -> str:
    path = str(context.path).replace(":path}", "}")
    return f"{'|'.join(sorted(context.methods or ()))} {prefix}{path}"


def _honoured(schema: type[RequestBody]) -> Iterator[Row]:
    """The declared fields, with those inside them."""
    document = schema.model_json_schema()
    return _fields(document, "", document.get("$defs", {}))


def _fields(node: dict[str, Any], path: str, definitions: dict[str, Any]) -> Iterator[Row]:
    required = node.get("required", ())
    for name, field in node.get("properties", {}).items():
        where = path + name
        needed = " (required)" if name in required else ""
        note = field.get("description", "")
        yield f"`{where}`", f"honoured{needed}", _accepts(field, definitions), note
        for option in field.get("anyOf", [field]):
            if option.get("type") == "array":
                yield from _fields(_named(option["items"], definitions), f"{where}[].", definitions)
            else:
                yield from _fields(_named(option, definitions), f"{where}.", definitions)
    for name, why in node.get(IGNORED_INSIDE, {}).items():
        yield f"`{path}{name}`", "ignored", "anything", why


def _named(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """What a reference means; nothing for what is none."""
    found: dict[str, Any] = definitions.get(node.get("$ref", "").rpartition("/")[2], {})
    return found


def _others(schema: type[RequestBody]) -> Iterator[Row]:
    for name, why in sorted(schema.ignored.items()):
        yield f"`{name}`", "ignored", "anything", why
    for name, verdict in sorted(schema.refused.items()):
        harmless = " or ".join(f"`{json.dumps(value)}`" for value in verdict.harmless)
        yield f"`{name}`", "refused", harmless, verdict.instead


def _accepts(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON schema in a few words. Null is never mentioned: it means absent everywhere."""
    if options := schema.get("anyOf") or schema.get("oneOf"):
        said = [_accepts(option, definitions) for option in options]
        return " or ".join(dict.fromkeys(words for words in said if words))
    if "$ref" in schema:
        return _accepts(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"`{json.dumps(value)}`" for value in values)
    match schema.get("type"):
        case "null":
            return ""
        case "array":
            return f"list of {_plain(schema.get('items', {}), definitions)}{_bounds(schema)}"
        case "object" if schema.get("additionalProperties") not in (None, True, False):
            inside = _plain(schema["additionalProperties"], definitions)
            return f"object of {inside}{_bounds(schema)}"
        case str(kind):
            return f"{kind}{_bounds(schema)}"
        case _:
            return "anything"


def _plain(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    words = _accepts(schema, definitions)
    return f"({words})" if " or " in words or "," in words else words


def _bounds(schema: dict[str, Any]) -> str:
    """Of a number its value, of all else its length. int64's own are nobody's concern."""
    for unit, low, high in (
        ("", "minimum", "maximum"),
        (" characters", "minLength", "maxLength"),
        (" items", "minItems", "maxItems"),
        (" keys", "minProperties", "maxProperties"),
    ):
        least, most = schema.get(low), schema.get(high)
        if low == "minimum" and "exclusiveMinimum" in schema:
            return f" above {schema['exclusiveMinimum']}" + (f", to {most}" if most else "")
        if abs(most or 0) >= 2**53:
            return ""
        if least is not None and most is not None:
            return f", {least} to {most}{unit}"
        if least is not None:
            return f", at least {least}{unit}"
        if most is not None:
            return f", at most {most}{unit}"
    return ""


def _errors() -> Iterator[Row]:
    for row in ERRORS:
        yield str(row.status), f"`{row.code}`" if row.code else "null", row.when


def _table(columns: Row, rows: Iterable[Row]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    cells = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


if __name__ == "__main__":
    PATH.write_text(reference(), encoding="utf-8")
