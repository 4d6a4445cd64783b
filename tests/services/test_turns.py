"""Histories as clients echo them, made into turns that templates understand."""

from __future__ import annotations

from typing import Any

import pytest

from server.schemas.messages import Message
from server.services.turns import turns_of


def _turns(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(turn) for turn in turns_of([Message(**message) for message in messages])]


def _call(arguments: object, id: str = "c") -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    return {"id": id, "type": "function", "function": function}


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ('{"a": 1}', {"a": 1}),
        ({"a": 1}, {"a": 1}),
        ("", {}),
        (None, {}),
        ("{}", {}),
        ("{not json", "{not json"),
        ("[1]", "[1]"),
        ("[" * 200_000, "[" * 200_000),
    ],
    ids=lambda value: str(value)[:20],
)
def test_arguments_are_objects_where_they_can_be(given: object, seen: object) -> None:
    (turn,) = _turns({"role": "assistant", "content": None, "tool_calls": [_call(given)]})
    assert turn["content"] == ""
    assert turn["tool_calls"] == [_call(seen)]


def test_a_result_says_whose_it_is() -> None:
    _, known, named, unmatched = _turns(
        {"role": "assistant", "tool_calls": [_call("{}")]},
        {"role": "tool", "content": "ok", "tool_call_id": "c"},
        {"role": "tool", "content": None, "tool_call_id": "c", "name": "other"},
        {"role": "tool", "content": "ok", "tool_call_id": "from a turn that was cut off"},
    )
    assert known == {"role": "tool", "content": "ok", "tool_call_id": "c", "name": "f"}
    assert (named["content"], named["name"]) == ("", "other")
    assert "name" not in unmatched


def test_legacy_functions_become_tools() -> None:
    call, result, again = _turns(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "ok"},
        {"role": "assistant", "content": "done", "function_call": None, "tool_calls": None},
    )
    (made,) = call["tool_calls"]
    assert made["function"] == {"name": "f", "arguments": {}}
    assert result == {
        "role": "tool",
        "content": "ok",
        "name": "f",
        "tool_call_id": made["id"],
    }
    assert again == {"role": "assistant", "content": "done"}


def test_calls_without_an_id_get_one_each() -> None:
    (turn,) = _turns({"role": "assistant", "tool_calls": [_call("{}", id) for id in ("", "")]})
    first, second = (call["id"] for call in turn["tool_calls"])
    assert first and second and first != second


def test_a_custom_call_of_another_server_is_a_call() -> None:
    custom = {"id": "c", "type": "custom", "custom": {"name": "run", "input": "ls"}}
    (turn,) = _turns({"role": "assistant", "tool_calls": [custom]})
    assert turn["tool_calls"][0]["function"] == {"name": "run", "arguments": {"input": "ls"}}


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_under_one_name(field: str) -> None:
    (turn,) = _turns({"role": "assistant", "content": "7", field: "3 and 4"})
    assert turn == {"role": "assistant", "content": "7", "reasoning_content": "3 and 4"}


@pytest.mark.parametrize("odd", [None, "", [], {"effort": "low"}])
def test_odd_reasoning_is_no_error(odd: object) -> None:
    (turn,) = _turns({"role": "assistant", "content": "7", "reasoning": odd})
    assert turn == {"role": "assistant", "content": "7"}
