"""The turns of a conversation: what clients send, and where they are told that it is wrong."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from server.schemas.messages import Message

from .requests import HI, parsed, refusal


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "user", "content": "Hi"}, "Hi"),
        ({"role": "user", "content": None}, ""),
        ({"role": "user", "content": [{"type": "text", "text": "a"}] * 2}, "a\na"),
        ({"role": "user", "content": "Hi", "name": "Ann", "tool_calls": None}, "Hi"),
        ({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}]}, ""),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}, ""),
        ({"role": "assistant", "content": None, "refusal": "I cannot"}, "I cannot"),
        ({"role": "assistant", "refusal": "I cannot"}, "I cannot"),
        ({"role": "assistant", "content": "Hi", "refusal": "I cannot"}, "Hi"),
        ({"role": "assistant", "content": None, "refusal": {"odd": 1}}, ""),
        ({"role": "user", "content": None, "refusal": "I cannot"}, ""),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, "no"),
        ({"role": "tool", "content": "r", "tool_call_id": "c", "name": "f"}, "r"),
        (
            {
                "role": "assistant",
                "content": "echoed",
                "refusal": None,
                "annotations": [],
                "audio": None,
                "function_call": None,
                "tool_calls": None,
                "reasoning_content": None,
                "parsed": None,
                "extra_field": 1,
            },
            "echoed",
        ),
    ],
)
def test_messages_are_read_as_clients_send_them(message: dict[str, object], text: str) -> None:
    request = parsed(messages=[message])
    assert request.messages[0].text("messages[0]") == text


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"role": "user"}, "missing_required_parameter", "messages[1].content"),
        ({"role": "assistant"}, "missing_required_parameter", "messages[1].content"),
        ({"content": "Hi"}, "missing_required_parameter", "messages[1].role"),
        ({"role": "king", "content": "Hi"}, "invalid_value", "messages[1].role"),
        ({"role": "user", "content": 123}, "invalid_type", "messages[1].content"),
        ({"role": "user", "content": {}}, "invalid_type", "messages[1].content"),
        ({"role": "user", "content": []}, "empty_array", "messages[1].content"),
        (
            {"role": "user", "content": [{"type": "text"}]},
            "missing_required_parameter",
            "messages[1].content[0].text",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "unsupported_content",
            "messages[1].content[0]",
        ),
        (
            {"role": "user", "content": [{"text": "a"}]},
            "missing_required_parameter",
            "messages[1].content[0].type",
        ),
        ("Hi", "invalid_type", "messages[1]"),
        (
            {"role": "tool", "content": "ok"},
            "missing_required_parameter",
            "messages[1].tool_call_id",
        ),
        ({"role": "function", "content": "ok"}, "missing_required_parameter", "messages[1].name"),
        (
            {"role": "assistant", "tool_calls": [{"id": "c"}]},
            "missing_required_parameter",
            "messages[1].tool_calls[0].function",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]},
            "missing_required_parameter",
            "messages[1].tool_calls[0].function.name",
        ),
        (
            {"role": "assistant", "content": [{"type": "input_audio", "input_audio": {}}]},
            "unsupported_content",
            "messages[1].content[0]",
        ),
    ],
)
def test_wrong_messages_are_refused_where_they_are(message: object, code: str, param: str) -> None:
    assert refusal(messages=[*HI, message]) == (code, param)


def test_messages_are_not_changed_by_reading_them() -> None:
    with pytest.raises(ValidationError):
        Message(role="user", content="Hi").content = "other"
