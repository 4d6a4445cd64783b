"""Whether a model thinks, how hard and how long: the spellings and which of them wins."""

from __future__ import annotations

from typing import Any

import pytest

from .requests import parsed


@pytest.mark.parametrize(
    ("body", "thinking", "effort"),
    [
        ({}, None, None),
        ({"reasoning_effort": "none"}, False, None),
        ({"reasoning_effort": "high"}, True, "high"),
        ({"enable_thinking": False}, False, None),
        ({"enable_thinking": False, "reasoning_effort": "low"}, False, "low"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True, None),
        ({"chat_template_kwargs": {"thinking": True}}, True, None),
        ({"chat_template_kwargs": {"enable_thinking": None}}, None, None),
        ({"chat_template_kwargs": {"reasoning_effort": "low"}}, True, "low"),
        (
            {"chat_template_kwargs": {"enable_thinking": False}, "enable_thinking": True},
            False,
            None,
        ),
        (
            {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "none"},
            True,
            None,
        ),
        ({"thinking_budget_tokens": 0}, False, None),
        ({"thinking_budget_tokens": 0, "enable_thinking": True}, True, None),
        ({"thinking_budget_tokens": 5}, None, None),
    ],
    ids=str,
)
def test_the_nearest_switch_wins(
    body: dict[str, Any], thinking: bool | None, effort: str | None
) -> None:
    request = parsed(**body)
    assert (request.thinking(), request.effort()) == (thinking, effort)


@pytest.mark.parametrize(
    "name",
    [
        "thinking_budget_tokens",
        "reasoning_budget_tokens",
        "thinking_token_budget",
        "thinking_budget",
    ],
)
def test_a_budget_has_many_names(name: str) -> None:
    assert parsed(**{name: 7}).budget() == 7
    assert parsed(**{name: 0}).budget() == 0
    assert parsed(**{name: -1}).budget() is None


def test_variables_of_the_template_are_the_clients_without_nulls() -> None:
    given = {"enable_thinking": False, "custom": [1], "none": None}
    assert parsed(chat_template_kwargs=given).variables() == {
        "enable_thinking": False,
        "custom": [1],
    }
