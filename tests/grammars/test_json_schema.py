"""What a JSON Schema lets through, and what is refused with which words."""

# ruff: noqa: E501 (tables)

from __future__ import annotations

import json
from typing import Any

import pytest

from server.core.errors import InvalidRequest
from server.services.grammars import json_body, json_schema_atom, left_out, object_body

from .acceptance import accepts, matcher

TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}], "default": None},
            },
            "required": ["value"],
        }
    },
    "$ref": "#/$defs/Node",
}
TAGGED = {
    "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
    "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat"}},
    "$defs": {
        name: {
            "type": "object",
            "properties": {"kind": {"const": name.lower()}, **more},
            "required": ["kind", *more],
        }
        for name, more in (("Cat", {"lives": {"type": "integer"}}), ("Dog", {}))
    },
}
NAMED = {
    "type": "object",
    "additionalProperties": {"type": "integer"},
    "propertyNames": {"$ref": "#/$defs/C"},
    "$defs": {"C": {"enum": ["red", "blue"], "type": "string"}},
}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({}, ["1", '{"a": [null, "x"]}', "-1.5e3"], ["", "01", "{"]),
        (True, ["null"], ["nul"]),
        ({"type": "object"}, ["{}", '{"a": 1, "b": {}}'], ["[]", '{"a":1}', '{ "a": 1}']),
        ({"type": "integer"}, ["0", "-12", "9223372036854770000"], ["1.0", "9" * 20, "1e3"]),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 9.5}, ["1", "9"], ["0", "10", "-1"]),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, ["4"], ["3"]),
        ({"type": "integer", "maximum": 2**53 + 1}, ["9007199254740992"], ["9007199254740994"]),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, ["0", "0.99"], ["1", "-0.1"]),
        ({"type": "number", "maximum": 1e300}, ["5", "-3.5"], ['"5"']),
        ({"type": "integer", "multipleOf": 7, "minimum": 0}, ["0", "49"], ["48", "-7"]),
        ({"minimum": 3}, ["3"], ["2", '"x"']),
        ({"type": ["integer", "null"], "minimum": 3}, ["3", "null"], ["2", '"x"']),
        ({"enum": ["a", 1, None, {"b": [1]}]}, ['"a"', "1", "null", '{"b": [1]}'], ['"b"', "2"]),
        ({"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
        ({"enum": [True, 1]}, ["true", "1"], ["false"]),
        ({"const": 'q"\n'}, [r'"q\"\n"'], ['"q"']),
        ({"enum": ["a", "b"], "const": "b"}, ['"b"'], ['"a"']),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"éé"', '"a\\n"'], ['"é"', '"abcd"']),
        ({"type": "string", "maxLength": 10**9}, ['""'], ["1"]),
        ({"type": "string", "pattern": "b+"}, ['"abba"'], ['"aa"']),
        ({"type": "string", "pattern": "^a$", "format": "nonsense"}, ['"a"'], ['"b"']),
        (
            {"type": "string", "format": "uuid", "pattern": "^0"},
            [f'"0{"1" * 7}-1111-1111-1111-{"1" * 12}"'],
            [f'"1{"1" * 7}-1111-1111-1111-{"1" * 12}"'],
        ),
        (
            {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 2},
            ["[null]", "[null, null]"],
            ["[]", "[null,null]", "[1]", "[null, null, null]"],
        ),
        (
            {"prefixItems": [{"type": "null"}], "items": False, "minItems": 1},
            ["[null]"],
            ["[]", "[null, 1]"],
        ),
        (
            {
                "type": "array",
                "items": [{"type": "null"}, {"const": 1}],
                "additionalItems": {"const": 2},
            },
            ["[]", "[null, 1, 2, 2]"],
            ["[1]", "[null, 1, 1]"],
        ),
        ({"type": "array", "uniqueItems": True, "maxItems": 1}, ["[]", "[1]"], ["[1, 1]"]),
        ({"type": "array", "uniqueItems": False}, ["[1, 1]"], ["{}"]),
        (
            {"properties": {"a": {"type": "null"}, "b": {}}, "required": ["b"]},
            ['{"b": 1}', '{"a": null, "b": 1}'],
            ["{}", '{"b": 1, "a": null}', '{"b": 1, "c": 1}', "null"],
        ),
        (
            {"properties": {"a": {}}, "additionalProperties": {"type": "null"}},
            ['{"a": 1, "z": null}', '{"z": null}'],
            ['{"z": 1}', r'{"a": 1, "\u0061": null}'],
        ),
        ({"properties": {"a": {}}, "required": ["z"]}, ['{"a": 1, "z": 1}'], ['{"a": 1}']),
        ({"properties": {"a": False, "b": {}}}, ['{"b": 1}', "{}"], ['{"a": 1}']),
        (
            {"patternProperties": {"^x-": {"type": "null"}}, "additionalProperties": False},
            ['{"x-a": null}', "{}"],
            ['{"x-a": 1}', '{"a": null}'],
        ),
        (NAMED, ['{"red": 1}', '{"red": 1, "blue": 2}'], ['{"green": 1}', '{"red": "1"}']),
        (
            {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}},
            ['{"abc": 1}'],
            ['{"A": 1}'],
        ),
        ({"type": "object", "propertyNames": {"maxLength": 2}}, ['{"ab": 1}'], ['{"abc": 1}']),
        ({"type": "object", "minProperties": 1}, ['{"a": 1}'], ["{}"]),
        ({"properties": {"a": {}, "b": {}}, "minProperties": 1}, ['{"b": 1}'], ["{}"]),
        ({"type": "object", "maxProperties": 1}, ["{}", '{"a": 1}'], ['{"a": 1, "b": 1}']),
        (
            TREE,
            ['{"value": 1}', '{"value": 1, "next": {"value": 2, "next": null}}'],
            ['{"value": 1, "next": 3}'],
        ),
        (
            TAGGED,
            ['{"kind": "cat", "lives": 9}', '{"kind": "dog"}'],
            ['{"kind": "cat"}', '{"kind": "cow"}'],
        ),
        (
            {
                "oneOf": [
                    {"properties": {"k": {"const": i}}, "required": ["k"]} for i in (1, 2, True)
                ]
            },
            ['{"k": 1}', '{"k": true}'],
            ['{"k": 3}', "1"],
        ),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, ['"a"', "null"], ["1"]),
        ({"oneOf": [{"type": "array"}, False]}, ["[1]"], ["1"]),
        (
            {
                "allOf": [{"$ref": "#/definitions/A"}],
                "description": "x",
                "definitions": {"A": {"type": "null"}},
            },
            ["null"],
            ["1"],
        ),
        (
            {
                "allOf": [
                    {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                    {"properties": {"b": {}}, "required": ["b"]},
                ]
            },
            ['{"a": 1, "b": 2}'],
            ['{"a": 1}', '{"b": 1}'],
        ),
        (
            {
                "type": "object",
                "properties": {"a": {}},
                "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
            },
            ['{"a": 1}', '{"b": 1}'],
            ["{}"],
        ),
        (
            {"properties": {"x": {"$ref": "#"}}, "additionalProperties": False},
            ['{"x": {"x": {}}}'],
            ['{"x": 1}'],
        ),
        ({"$defs": {"a/b~c": {"type": "null"}}, "$ref": "#/$defs/a~1b~0c"}, ["null"], ["1"]),
        ({"$defs": {"a b": {"type": "null"}}, "$ref": "#/$defs/a%20b"}, ["null"], ["1"]),
        ({"$defs": {"A": {"$anchor": "here", "type": "null"}}, "$ref": "#here"}, ["null"], ["1"]),
        (
            {
                "$defs": {"A": {"$id": "https://x.test/a", "type": "null"}},
                "$ref": "https://x.test/a",
            },
            ["null"],
            ["1"],
        ),
        (
            {
                "type": "string",
                "x-order": 1,
                "example": "a",
                "nullable": True,
                "deprecated": True,
                "readOnly": True,
                "$comment": "",
                "examples": [1],
                "default": 1,
                "contentMediaType": "text/html",
            },
            ['"a"'],
            ["1"],
        ),
        ({"type": "string", "minimum": 3, "required": ["a"]}, ['"a"'], ["1"]),
        ({"then": False, "type": "null"}, ["null"], ["1"]),
    ],
)
def test_language(schema: Any, good: list[str], bad: list[str]) -> None:
    body = json_body(schema, param="response_format")
    assert [text for text in good if not accepts(body, text)] == []
    assert [text for text in bad if accepts(body, text)] == []


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def chain(length: int) -> dict[str, Any]:
    links = {
        f"d{i}": {"properties": {"next": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(length)
    }
    return {"$defs": {**links, f"d{length}": {"type": "null"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"properties": {"a": {"not": {"const": 1}}}}, ["'not'", "#/properties/a"]),
        ({"if": {}, "then": {}}, ["'if'", "anyOf"]),
        ({"type": "array", "uniqueItems": True}, ["'uniqueItems'", "leave it out"]),
        ({"items": {"contains": {}}}, ["'contains'", "#/items"]),
        ({"dependentRequired": {"a": ["b"]}}, ["'dependentRequired'"]),
        ({"unevaluatedProperties": False}, ["'unevaluatedProperties'", "additionalProperties"]),
        ({"$dynamicRef": "#x"}, ["'$dynamicRef'", "$ref"]),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, ["'oneOf'", "anyOf", "#/oneOf"]),
        ({"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, ["'oneOf'"]),
        ({"oneOf": [{"enum": [1, 2]}, {"enum": [2.0, 3]}]}, ["'oneOf'"]),
        ({"oneOf": [{"required": ["a"]}, {"minLength": 3}]}, ["'oneOf'"]),
        ({"oneOf": [{"const": float("nan")}, {"type": "integer"}]}, ["exactly"]),
        (
            {"oneOf": [{"$ref": "#/$defs/A"}, {}], "$defs": {"A": {"type": [{}]}}},
            ["#/$defs/A/type"],
        ),
        ({"type": "string", "pattern": "(?=a)b"}, ["lookahead", "#/pattern"]),
        ({"type": "string", "pattern": "(a)\\1"}, ["back-reference"]),
        ({"type": "string", "pattern": "("}, ["unmatched ("]),
        ({"$ref": "https://example.test/x.json"}, ["'$ref'", "not within this schema"]),
        ({"$ref": "#/$defs/Gone"}, ["points nowhere"]),
        ({"$ref": "#/title", "title": "x"}, ["points to no schema"]),
        ({"$ref": "#"}, ["leads back to itself"]),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, ["leads back to itself"]),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, ["finite"]),
        (False, ["no finite value"]),
        ({"type": "integer", "minimum": 3, "maximum": 2}, ["no finite value"]),
        ({"type": "string", "enum": [1]}, ["no finite value"]),
        ({"type": "strnig"}, ["'strnig'", "#/type"]),
        ({"type": []}, ["'type'"]),
        ({"enum": []}, ["'enum'"]),
        ({"const": 2**53 + 1}, ["9007199254740993", "exactly"]),
        ({"enum": [float("nan")]}, ["exactly"]),
        ({"const": "\ud800"}, ["surrogate"]),
        ({"properties": {"a\x01": {}}}, ["control character"]),
        ({"properties": {"\ud800": {}}}, ["surrogate"]),
        ({"minLength": -1}, ["'minLength'"]),
        ({"minItems": "2"}, ["'minItems'"]),
        ({"minItems": 10**6}, ["'minItems'"]),
        ({"required": "a"}, ["'required'"]),
        ({"properties": []}, ["'properties'"]),
        ({"anyOf": []}, ["'anyOf'"]),
        ({"items": 3}, ["#/items"]),
        ({"type": "number", "multipleOf": 0}, ["'multipleOf'"]),
        ({"properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2}, ["'minProperties'"]),
        ({"type": "object", "minProperties": 2}, ["'minProperties'"]),
        ({"properties": {"a": {}}, "patternProperties": {"^a": {}}}, ["'patternProperties'"]),
        ({"allOf": [{"patternProperties": {"^a": {}}}, {"properties": {"b": {}}}]}, ["allOf"]),
        ({"enum": list(range(6000))}, ["5000 values"]),
        (nested(5000), ["deeper than 100"]),
        (chain(900), ["chain of '$ref'"]),
        ({"anyOf": [{"const": i} for i in range(30_000)]}, ["20000 parts"]),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(schema: Any, words: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        json_body(schema, param="response_format")
    assert caught.value.error_code == "invalid_json_schema"
    assert caught.value.param == "response_format"
    for word in words:
        assert word in caught.value.message


def test_not_strict_leaves_out_what_cannot_be_enforced() -> None:
    schema = {
        "type": "object",
        "properties": {
            "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            "code": {"type": "string", "pattern": "(?!x)y"},
            "size": {"oneOf": [{"type": "integer"}, {"type": "number"}], "not": {"const": 0}},
        },
    }
    body = json_body(schema, param="tools", strict=False)
    assert accepts(body, '{"tags": ["a", "a"], "code": "x", "size": 0}')
    assert not accepts(body, '{"tags": [1]}')
    assert left_out(schema, param="x") == ["not", "oneOf", "pattern", "uniqueItems"]
    counted = {"properties": {"a": {}}, "additionalProperties": {}, "maxProperties": 3}
    named = {"properties": {"a": {}}, "propertyNames": {"pattern": "b"}}
    assert left_out(counted, param="x") == ["maxProperties"]
    assert left_out(named, param="x") == ["propertyNames"]
    enforced = {"type": "array", "items": {"type": "string"}, "uniqueItems": False}
    assert left_out(enforced, param="x") == []


def test_pydantics_decimal_is_understood() -> None:
    plain = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"
    body = json_body(
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": plain}]}, param="x"
    )
    assert accepts(body, '"-12.5"')
    assert not accepts(body, '"-."')
    places = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d{0,2}0*$"
    body = json_body({"type": "string", "pattern": places}, param="x")
    assert accepts(body, '"1.25"')
    assert not accepts(body, '"1.255"')


def test_a_long_chain_of_references_compiles() -> None:
    matcher(json_body(chain(180), param="x"))


def test_an_object_and_an_inline_expression() -> None:
    assert accepts(object_body(), '{"a": {}}')
    assert not accepts(object_body(), "[1]")
    atom = json_schema_atom({"properties": {"city": {"type": "string"}}}, param="tools")
    assert accepts(f'body: "<call>" {atom} "</call>"\n', '<call>{"city": "Rom"}</call>')


def test_texts_of_a_schema_do_not_escape_into_the_grammar() -> None:
    hostile = '"} \nstart: /.*/ // \u2028 </x>'
    body = json_body({"const": hostile}, param="x")
    assert accepts(body, json.dumps(hostile, ensure_ascii=False))
    assert not accepts(body, "anything")


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", ["2024-02-29", "2000-02-29", "0400-02-29", "1999-12-31"], ["2023-02-29", "1900-02-29", "0000-01-01", "2024-04-31", "2024-13-01"]),
        ("time", ["23:59:59Z", "00:00:00.123456+05:30"], ["24:00:00Z", "10:00:60Z", "10:00:00"]),
        ("date-time", ["2024-02-29T10:00:00Z"], ["2024-02-29 10:00:00Z", "2024-02-30T10:00:00Z"]),
        ("duration", ["P1Y2M3DT4H5M6S", "PT5M", "P2W", "P3D"], ["P", "PT", "P1S", "1D", "P1YT"]),
        ("email", ["a.b+c@example.org"], ["a@b", "a..b@example.org", "@example.org", "a b@x.org"]),
        ("hostname", ["example.org", "localhost"], ["-a.org", "a_b", ""]),
        ("ipv4", ["127.0.0.1", "255.255.255.255"], ["256.0.0.1", "1.2.3", "01.2.3.4"]),
        ("ipv6", ["::", "::1", "fe80::1:2", "1:2:3:4:5:6:7:8", "1::", "1:2:3:4:5:6:7::"], ["1::2::3", ":", "1:2:3", "1:2:3:4:5:6:7:8:9", "g::"]),
        ("ipvanyaddress", ["1.2.3.4", "::1"], ["x"]),
        ("uri", ["https://example.org/a?b=c#d", "http://localhost:8080", "mailto:a@b.org"], ["example.org", "http://", "https://a b.org"]),
        ("uuid", ["01234567-89ab-cdef-0123-456789ABCDEF"], ["0123456789abcdef0123456789abcdef", "g1234567-89ab-cdef-0123-456789abcdef"]),
        ("uuid4", ["01234567-89ab-4def-8123-456789abcdef"], ["01234567-89ab-1def-8123-456789abcdef", "01234567-89ab-4def-0123-456789abcdef"]),
        ("byte", ["", "YWI=", "YWJj", "YQ=="], ["YWI", "Y*==", "="]),
    ],
)  # fmt: skip
def test_formats(name: str, good: list[str], bad: list[str]) -> None:
    body = json_body({"type": "string", "format": name}, param="response_format")
    assert [text for text in good if not accepts(body, json.dumps(text))] == []
    assert [text for text in bad if accepts(body, json.dumps(text))] == []
