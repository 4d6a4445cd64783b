"""Tools: what may be offered, and every way to say which of them may be called."""

from __future__ import annotations

from typing import Any

import pytest

from .requests import parsed, refusal

F = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
G = {"type": "function", "function": {"name": "g"}}
NAMED_F = {"type": "function", "function": {"name": "f"}}
BOTH = frozenset("fg")


def _allowed(mode: str, *tools: object) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


@pytest.mark.parametrize(
    ("choice", "mode", "callable"),
    [
        (None, "auto", BOTH),
        ("auto", "auto", BOTH),
        ("none", "none", frozenset()),
        ("required", "required", BOTH),
        ("any", "required", BOTH),
        ({"type": "auto"}, "auto", BOTH),
        ({"type": "any"}, "required", BOTH),
        (NAMED_F, "required", frozenset("f")),
        (_allowed("auto", G), "auto", frozenset("g")),
        (_allowed("required", G, F), "required", BOTH),
        (_allowed("required", {"type": "function", "name": "g"}), "required", frozenset("g")),
    ],
    ids=str,
)
def test_a_choice_says_who_may_be_called(choice: object, mode: str, callable: object) -> None:
    use = parsed(tools=[F, G], tool_choice=choice).tool_use()
    assert (use.mode, use.callable) == (mode, callable)
    assert [function.name for function in use.functions] == ["f", "g"]


@pytest.mark.parametrize("tools", [None, []])
@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_without_tools_nothing_is_called(tools: object, choice: object) -> None:
    use = parsed(tools=tools, tool_choice=choice).tool_use()
    assert (use.mode, use.callable, use.functions) == ("none", frozenset(), ())


@pytest.mark.parametrize("tools", [None, []])
@pytest.mark.parametrize("choice", ["required", "any", NAMED_F, _allowed("auto", F)], ids=str)
def test_what_is_not_offered_cannot_be_required(tools: object, choice: object) -> None:
    assert refusal(tools=tools, tool_choice=choice) == ("invalid_value", "tool_choice")


@pytest.mark.parametrize("tools", [None, [F]])
@pytest.mark.parametrize(
    "choice",
    [
        "bogus",
        {},
        {"type": "function"},
        {"type": "function", "function": {}},
        {"type": "function", "function": {"name": 5}},
        {"type": "function", "function": {"name": "h"}},
        {"type": "custom", "custom": {"name": "f"}},
        _allowed("auto"),
        _allowed("bogus", F),
        _allowed("auto", {"type": "function"}),
        _allowed("auto", F, {"type": "function", "function": {"name": "h"}}),
        {"type": "allowed_tools"},
    ],
    ids=str,
)
def test_a_wrong_choice_is_refused_with_and_without_tools(choice: object, tools: object) -> None:
    assert refusal(tools=tools, tool_choice=choice) == ("invalid_value", "tool_choice")


@pytest.mark.parametrize(("choice", "code"), [(5, "invalid_type"), (True, "invalid_type")])
def test_a_choice_of_no_known_type_is_refused(choice: object, code: str) -> None:
    assert refusal(tools=[F], tool_choice=choice) == (code, "tool_choice")


@pytest.mark.parametrize(
    ("tool", "code", "param"),
    [
        ({"type": "custom", "custom": {"name": "f"}}, "unsupported_value", "tools[0].type"),
        ({"type": "web_search"}, "unsupported_value", "tools[0].type"),
        ({"type": "function"}, "missing_required_parameter", "tools[0].function"),
        ({"type": "function", "name": "f"}, "missing_required_parameter", "tools[0].function"),
        (
            {"type": "function", "function": {}},
            "missing_required_parameter",
            "tools[0].function.name",
        ),
        ({"function": {"name": "a b"}}, "invalid_value", "tools[0].function.name"),
        ({"function": {"name": ""}}, "invalid_value", "tools[0].function.name"),
        ({"function": {"name": "x" * 129}}, "invalid_value", "tools[0].function.name"),
        (
            {"function": {"name": "f", "parameters": "{}"}},
            "invalid_type",
            "tools[0].function.parameters",
        ),
        (
            {"function": {"name": "f", "parameters": {"type": "array"}}},
            "invalid_json_schema",
            "tools[0].function.parameters",
        ),
        ("f", "invalid_type", "tools[0]"),
    ],
    ids=str,
)
def test_wrong_tools_are_refused_where_they_are(tool: object, code: str, param: str) -> None:
    assert refusal(tools=[tool]) == (code, param)


def test_two_tools_of_one_name_cannot_be_told_apart() -> None:
    assert refusal(tools=[F, G, F]) == ("invalid_value", "tools[2].function.name")


@pytest.mark.parametrize(
    ("parameters", "schema"),
    [
        (None, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
    ],
)
def test_arguments_are_always_an_object(parameters: object, schema: object) -> None:
    tool = {"function": {"name": "f.g-h_1", "parameters": parameters, "strict": None}}
    (function,) = parsed(tools=[tool]).tool_use().functions
    assert function.schema_of_arguments("") == schema


@pytest.mark.parametrize(
    ("more", "parallel"),
    [
        ({}, True),
        ({"parallel_tool_calls": True}, True),
        ({"parallel_tool_calls": False}, False),
        ({"tool_choice": NAMED_F}, False),
        ({"tool_choice": "required"}, True),
    ],
    ids=str,
)
def test_several_calls_are_allowed_unless_one_is_asked_for(
    more: dict[str, Any], parallel: bool
) -> None:
    assert parsed(tools=[F], **more).tool_use().parallel is parallel


@pytest.mark.parametrize(
    ("choice", "mode", "callable"),
    [
        (None, "auto", BOTH),
        ("auto", "auto", BOTH),
        ("none", "none", frozenset()),
        ({"name": "g"}, "required", frozenset("g")),
    ],
    ids=str,
)
def test_legacy_functions_are_tools(choice: object, mode: str, callable: object) -> None:
    functions = [{"name": "f"}, {"name": "g", "parameters": {"type": "object"}}]
    use = parsed(functions=functions, function_call=choice).tool_use()
    assert (use.mode, use.callable, use.legacy, use.parallel) == (mode, callable, True, False)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"functions": [{"name": "f"}], "function_call": {"name": "h"}}, "function_call"),
        ({"functions": [{"name": "f"}], "function_call": "required"}, "function_call"),
        ({"functions": [{"name": "f"}], "function_call": {}}, "function_call"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"functions": [{"name": "f"}], "tools": [G]}, "functions"),
        ({"functions": [{"name": "f"}, {"name": "f"}]}, "functions[1].name"),
    ],
    ids=str,
)
def test_wrong_legacy_functions_are_refused(body: dict[str, Any], param: str) -> None:
    assert refusal(**body) == ("invalid_value", param)


@pytest.mark.parametrize("choice", [None, "required"])
def test_a_grammar_of_ones_own_leaves_no_room_for_calls(choice: object) -> None:
    body = {"tools": [F], "tool_choice": choice, "grammar": 'root ::= "x"'}
    assert refusal(**body) == ("invalid_value", "grammar")
    assert parsed(**body | {"tool_choice": "none"}).check_together() is None
