"""response_format and its relatives through the real app: honoured by a grammar, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes import FakeEngine, FakeFormat, says

from .conftest import Serve

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["name", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/Node",
}
UNENFORCEABLE = {"type": "object", "dependentRequired": {"a": ["b"]}}
TAGS = {
    "type": "object",
    "properties": {"tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}},
}
TOOL = {"type": "function", "function": {"name": "f"}}


def _json_schema(schema: object = ..., **more: object) -> dict[str, Any]:
    named = more if schema is ... else {"schema": schema, **more}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "binds"),
    [
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": {"type": "json_object"}}, True),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, True),
        (_json_schema(SCHEMA, name="n", strict=True), True),
        (_json_schema(SCHEMA, name="n", strict=False), True),
        (_json_schema(SCHEMA), True),
        (_json_schema(name="n"), True),
        (_json_schema({}, name="n"), True),
        (_json_schema(TREE, name="n", strict=True), True),
        ({"json_schema": SCHEMA}, True),
        ({"grammar": 'root ::= "yes" | "no"'}, True),
        ({"guided_regex": "[a-z]+"}, True),
        ({"guided_choice": ["yes", "no"]}, True),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, True),
        ({"response_format": {"type": "json_object"}, "tools": [TOOL]}, True),
    ],
    ids=str,
)
async def test_what_the_answer_must_be_reaches_the_engine(
    serve: Serve, body: dict[str, Any], binds: bool, stream: bool
) -> None:
    engine = FakeEngine(says('{"a":1}'))
    async with serve(engine, format=FakeFormat()) as client:
        response = await client.post(
            "/v1/chat/completions", json={"messages": HI, "stream": stream, **body}
        )
    assert response.status_code == 200, response.text
    (asked,) = engine.requests
    assert ("body" in asked.grammar) is binds
    assert bool(asked.grammar) is binds


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "code", "param", "named"),
    [
        (
            {"response_format": {"type": "json_schema"}},
            "missing_required_parameter",
            "response_format.json_schema",
            "json_schema",
        ),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type", "xml"),
        (
            _json_schema(UNENFORCEABLE, name="n", strict=True),
            "invalid_json_schema",
            "response_format",
            "dependentRequired",
        ),
        ({"guided_json": UNENFORCEABLE}, "invalid_json_schema", "guided_json", "dependentR"),
        ({"json_schema": UNENFORCEABLE}, "invalid_json_schema", "json_schema", "dependentR"),
        (
            _json_schema({"$ref": "#/$defs/missing"}),
            "invalid_json_schema",
            "response_format",
            "missing",
        ),
        ({"json_schema": {"type": "strin"}}, "invalid_json_schema", "json_schema", "strin"),
        ({"grammar": 'root ::= "x'}, "invalid_grammar", "grammar", "line"),
        ({"guided_regex": "(a"}, "invalid_grammar", "guided_regex", ""),
        ({"grammar": 'root ::= "x"', "tools": [TOOL]}, "invalid_value", "grammar", "tool"),
    ],
    ids=str,
)
async def test_what_cannot_be_enforced_is_refused_by_name(
    serve: Serve, body: dict[str, Any], code: str, param: str, named: str, stream: bool
) -> None:
    engine = FakeEngine()
    async with serve(engine, format=FakeFormat()) as client:
        response = await client.post(
            "/v1/chat/completions", json={"messages": HI, "stream": stream, **body}
        )
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param), error
    assert named in error["message"]
    assert engine.requests == ()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ["chat/completions", "completions"])
@pytest.mark.parametrize(
    ("body", "named"),
    [
        (_json_schema(UNENFORCEABLE, name="n"), "response_format.dependentRequired"),
        (_json_schema(UNENFORCEABLE, strict=False), "response_format.dependentRequired"),
        (
            {"response_format": {"type": "json_object", "schema": TAGS}, "user": "u"},
            "user,response_format.uniqueItems",
        ),
        (_json_schema(SCHEMA), None),
        (_json_schema(TAGS | {"properties": {"tags": {"type": "array"}}}, strict=True), None),
    ],
    ids=str,
)
async def test_what_need_not_be_enforced_is_named(
    serve: Serve, body: dict[str, Any], named: str | None, route: str, stream: bool
) -> None:
    engine = FakeEngine(says("{}"))
    asked = {"messages": HI} if route.startswith("chat") else {"prompt": "Hi"}
    async with serve(engine, format=FakeFormat()) as client:
        response = await client.post(f"/v1/{route}", json={**asked, "stream": stream, **body})
    assert response.status_code == 200, response.text
    assert response.headers.get("x-ignored-params") == named
    (request,) = engine.requests
    assert "%json" in request.grammar


async def test_what_of_a_tool_need_not_be_enforced_is_named(serve: Serve) -> None:
    tools = [
        {"type": "function", "function": {"name": name, "parameters": TAGS, "strict": strict}}
        for name, strict in (("one", None), ("two", False))
    ]
    bodies = [{"tools": tools}, {"functions": [tool["function"] for tool in tools]}]
    names = []
    for body in [*bodies, {"tools": tools, "tool_choice": "none"}]:
        async with serve(FakeEngine(), format=FakeFormat()) as client:
            response = await client.post("/v1/chat/completions", json={"messages": HI, **body})
        assert response.status_code == 200, response.text
        names.append(response.headers.get("x-ignored-params"))
    assert names == [
        "tools[0].function.parameters.uniqueItems,tools[1].function.parameters.uniqueItems",
        "functions[0].parameters.uniqueItems,functions[1].parameters.uniqueItems",
        None,
    ]
