"""What an answer must be: each spelling, and the ones that contradict each other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.schemas.structure import Structure

from .requests import parsed, refusal

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
GBNF = 'root ::= "x"'


@pytest.mark.parametrize(
    ("body", "structure"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        (
            {"response_format": {"type": "json_object"}},
            Structure("object", None, "response_format"),
        ),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            Structure("json", SCHEMA, "response_format", strict=False),
        ),
        *[
            (
                {
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {"name": "n", "schema": SCHEMA, "strict": strict},
                    }
                },
                Structure("json", SCHEMA, "response_format", strict is True),
            )
            for strict in (None, False, True)
        ],
        *[
            (
                {"response_format": {"type": "json_schema", "json_schema": named}},
                Structure("object", None, "response_format"),
            )
            for named in ({}, {"name": "n", "schema": {}}, {"schema": None, "strict": True})
        ],
        ({"json_schema": SCHEMA}, Structure("json", SCHEMA, "json_schema")),
        ({"json_schema": json.dumps(SCHEMA)}, Structure("json", SCHEMA, "json_schema")),
        ({"grammar": GBNF}, Structure("gbnf", GBNF, "grammar")),
        ({"guided_json": SCHEMA}, Structure("json", SCHEMA, "guided_json")),
        ({"guided_regex": "a+"}, Structure("regex", "a+", "guided_regex")),
        ({"guided_choice": ["a", "b"]}, Structure("choice", ("a", "b"), "guided_choice")),
        ({"guided_grammar": GBNF}, Structure("gbnf", GBNF, "guided_grammar")),
        *[
            (
                {"structured_outputs": {name: value}},
                Structure(kind, as_is, f"structured_outputs.{name}"),
            )
            for name, kind, value, as_is in (
                ("json", "json", SCHEMA, SCHEMA),
                ("regex", "regex", "a+", "a+"),
                ("choice", "choice", ["a"], ("a",)),
                ("grammar", "gbnf", GBNF, GBNF),
                ("json_object", "object", True, None),
            )
        ],
        ({"grammar": "", "guided_regex": "", "json_schema": ""}, None),
        ({"structured_outputs": {"json_object": False, "disable_fallback": True}}, None),
        (
            {"response_format": {"type": "text"}, "grammar": GBNF},
            Structure("gbnf", GBNF, "grammar"),
        ),
    ],
    ids=str,
)
def test_every_spelling_is_one_constraint(
    body: dict[str, Any], structure: Structure | None
) -> None:
    assert parsed(**body).structure() == structure


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"response_format": {"type": "bogus"}}, "invalid_value", "response_format.type"),
        ({"response_format": {}}, "missing_required_parameter", "response_format.type"),
        (
            {"response_format": {"type": "json_schema"}},
            "missing_required_parameter",
            "response_format.json_schema",
        ),
        (
            {"response_format": {"type": "json_object", "schema": 123}},
            "invalid_type",
            "response_format.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}},
            "invalid_type",
            "response_format.json_schema.schema",
        ),
        ({"response_format": "json"}, "invalid_type", "response_format"),
        ({"guided_json": "{"}, "invalid_json_schema", "guided_json"),
        ({"guided_json": "[" * 200_000}, "invalid_json_schema", "guided_json"),
        ({"guided_json": 5}, "invalid_type", "guided_json"),
        ({"guided_choice": []}, "empty_array", "guided_choice"),
        ({"guided_choice": [1]}, "invalid_type", "guided_choice[0]"),
        (
            {"structured_outputs": {"structural_tag": "x"}},
            "unsupported_parameter",
            "structured_outputs.structural_tag",
        ),
        ({"grammar": GBNF, "json_schema": SCHEMA}, "invalid_value", "json_schema"),
        (
            {"grammar": GBNF, "response_format": {"type": "json_object"}},
            "invalid_value",
            "response_format",
        ),
        (
            {"structured_outputs": {"regex": "a", "choice": ["a"]}},
            "invalid_value",
            "structured_outputs.regex",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_no_constraint_is_refused(body: dict[str, Any], code: str, param: str) -> None:
    assert refusal(**body) == (code, param)
