"""What counts as a tool task done, and the table of both servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.model.tool_score import WAYS, Answer, calls_in, calls_of, score
from tests.model.tool_tasks import DESK, FIRST, SECOND, Made

from .tools import SETS, markdown

MAIL = FIRST[4]
RIGHT: Made = ("send_email", {"to": "bob@example.com", "subject": "lunch", "body": "Hi"})


def _message(*calls: tuple[str, str]) -> dict[str, Any]:
    return {"tool_calls": [{"function": {"name": n, "arguments": a}} for n, a in calls]}


def test_the_tasks_ask_for_what_their_tools_can_do() -> None:
    assert len(FIRST) == len(SECOND) == 20
    assert len({task.question for task in FIRST + SECOND}) == 40
    for task in FIRST + SECOND:
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in task.tools}
        assert len(offered) == 5
        assert task.arguments.keys() <= offered[task.tool]["properties"].keys()


@pytest.mark.parametrize(
    ("calls", "done"),
    [
        ([RIGHT], True),
        ([], False),
        ([RIGHT, RIGHT], False),
        ([("search_web", RIGHT[1])], False),
        ([("send_email", {**RIGHT[1], "to": "ann@example.com"})], False),
        ([("send_email", {"to": "bob@example.com"})], False),
    ],
)
def test_a_task_is_done_by_one_call_with_what_was_said(calls: list[Made], done: bool) -> None:
    assert MAIL.is_done_by(calls) is done


@pytest.mark.parametrize(
    "call",
    [
        ("send_email", '{"to": "bob@example.com"}'),
        ("send_email", '{"to": "bob@example.com", "subject": "Lunch", "cc": "ann"}'),
        ("send_email", '{"to": "bob@example.com", "subject": 1}'),
        ("send_email", '{"to": "bob'),
        ("send_letter", "{}"),
    ],
)
def test_a_call_that_is_not_as_offered_is_not_valid(call: tuple[str, str]) -> None:
    right = (RIGHT[0], json.dumps(RIGHT[1]))
    assert calls_of(_message(right), DESK) == ([RIGHT], True)
    assert not calls_of(_message(right, call), DESK)[1]
    assert calls_of({"content": "Hello!"}, DESK) == ([], False)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"name": "a", "arguments": {"b": {}}}', ["a"]),
        (
            '```json\n{\n "name": "a",\n "arguments": {}\n}\n``` and {"name": "b", "arguments": {}',
            "ab",
        ),
        ('I say <tool_call>{"name": "a", "arguments": {"b": 1}', ["a"]),
        ('{"name": "Bob"} {"arguments": {}} {"name": "a", "arguments": "x"} {', []),
    ],
)
def test_a_person_sees_the_calls_in_a_text(text: str, names: list[str]) -> None:
    assert [name for name, _ in calls_in(text)] == list(names)


def test_the_table_tells_right_from_valid_and_named() -> None:
    right = Answer(MAIL, "tool_calls", [RIGHT], True, "")
    other = Answer(MAIL, "tool_calls", [("search_web", {"query": "lunch"})], True, "")
    sure = Answer(MAIL, "stop", [], False, "Sure!")
    ours, peers = score([right, other, sure]), score([sure] * 3)
    table = markdown(
        {
            side: {(name, way): made for name in SETS for way in WAYS}
            for side, made in (("ingle", ours), ("llama-server", peers))
        }
    )
    head, _, text, auto, _, named, *_ = table.splitlines()
    assert head == "| tasks | tool_choice | ingle | llama-server |"
    assert text == "| first 20 | – (its own text) | 1 right, 2 valid | 0 right, 0 valid |"
    assert auto == "| first 20 | auto | 1 right, 2 valid | 0 right, 0 valid |"
    assert named == "| first 20 | named | 1 right, 1 the named | 0 right, 0 the named |"
    assert len(table.splitlines()) == 2 + len(SETS) * len(WAYS)
