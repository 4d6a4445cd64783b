"""API.md is what the server does, and all of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from server.api.catalogue import ERRORS, RESPONSE_HEADERS
from server.api.openapi import body_schema
from server.api.reference import PATH, reference
from server.api.routes import openai_routes
from server.core.types import Admitted
from server.schemas.common import RequestBody
from tests.fakes import FakeEngine, model_info, says

from .conftest import Serve, make_app

ROOT = Path(__file__).parents[2]
_ELSEWHERE = {"cli", "tune", "bench", "catalog", "llama"}


def test_it_is_up_to_date() -> None:
    assert PATH.read_text(encoding="utf-8") == reference(), "run python -m server.api.reference"


def test_every_route_is_in_it() -> None:
    app, _ = make_app()
    text = PATH.read_text(encoding="utf-8")
    for context in iter_route_contexts(app.routes):
        if context.include_in_schema:
            assert f" {context.path_format}`" in text, context.path


def _bodies() -> list[type[RequestBody]]:
    found = (body_schema(context) for context in iter_route_contexts(openai_routes().routes))
    return [schema for schema in found if schema is not None]


@pytest.mark.parametrize("schema", _bodies(), ids=lambda schema: schema.__name__)
def test_a_field_has_one_verdict(schema: type[RequestBody]) -> None:
    verdicts = [*schema.model_fields, *schema.ignored, *schema.refused]
    assert len(verdicts) == len(set(verdicts))
    text = PATH.read_text(encoding="utf-8")
    assert all(f"| `{name}` | " in text for name in verdicts)
    assert all(verdict.instead.endswith(".") for verdict in schema.refused.values())


def test_it_looks_into_fields_and_tells_what_does_nothing_where() -> None:
    text = PATH.read_text(encoding="utf-8")
    template = text.partition("## `POST /v1/apply-template`")[2].partition("\n## ")[0]
    for path in ("tools[].function.name", "messages[].content[].text", "tools[].function.strict"):
        assert f"| `{path}` | honoured" in template, path
    assert "| `stream_options.include_obfuscation` | ignored |" in text
    assert "| `temperature` | ignored | anything | nothing is generated |" in template
    assert "| `temperature` | honoured |" not in template
    assert "/v1/reranking" not in text


def _codes() -> Iterator[str]:
    """Every string of the source that becomes the `code` of an answer."""
    for path in (ROOT / "server").rglob("*.py"):
        if not _ELSEWHERE.intersection(path.relative_to(ROOT / "server").parts):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield from _of(node)


def _of(node: ast.AST) -> Iterator[str]:
    """`code="…"` of a call, and `code = "…"` of an error class."""
    match node:
        case ast.keyword(arg="code", value=ast.Constant(value=str(code))) if code:
            yield code
        case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code))):
            yield code


def test_every_code_is_in_the_catalogue() -> None:
    catalogued = {row.code for row in ERRORS}
    assert len(set(ERRORS)) == len(ERRORS)
    found = set(_codes())
    assert found and not found - catalogued, "add them to server/api/catalogue.py"


def test_every_status_of_the_error_table_is_in_the_catalogue() -> None:
    from server.api.errors import status_of
    from server.core.errors import BY_NAME, StartupError

    catalogued = {(row.code, row.status) for row in ERRORS}
    for error in (kind("") for kind in BY_NAME.values() if not issubclass(kind, StartupError)):
        if error.error_code is not None:
            assert (error.error_code, status_of(error)) in catalogued


def test_the_references_of_the_openapi_document_resolve() -> None:
    app, _ = make_app()
    document = app.openapi()
    found = list(_references(document))
    assert found
    for reference_ in found:
        where: Any = document
        for step in reference_.removeprefix("#/").split("/"):
            where = where[step]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


@pytest.mark.anyio
async def test_every_header_of_our_own_is_in_it(serve: Serve) -> None:
    engine = FakeEngine()
    engine.loaded = None
    rows = {row.name.lower() for row in RESPONSE_HEADERS}
    quotas = {"key_max_requests": 2, "key_tokens_per_minute": 1000}
    async with serve(engine, **quotas) as client:
        body = {"messages": [{"role": "user", "content": "Hi"}], "foo": 1}
        loading = await client.post("/v1/chat/completions", json=body)
        engine.loaded = model_info()
        engine.script = lambda asked: [[Admitted(asked[0].id, 7, 1)], *says("Hi")(asked)]
        waited = [await client.post("/v1/chat/completions", json=body) for _ in range(2)][-1]
        engine.script = lambda _: [ValueError("a bug")]
        broken = await client.post("/v1/chat/completions", json=body)
    found = set(loading.headers) | set(waited.headers) | set(broken.headers)
    ordinary = {"content-type", "content-length", "vary"}
    assert rows == {n for n in found if not n.startswith("access-control-")} - ordinary
