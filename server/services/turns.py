"""Messages as clients send them, made into the turns that templates expect."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from server.schemas.messages import FunctionCall, Message, missing

from .formats.base import Turn


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """Legacy functions become tools on the way. Raises InvalidRequest naming the message."""
    called: dict[str, str] = {}
    turns: list[Turn] = []
    latest = ""
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        turn: dict[str, Any] = {"role": message.role, "content": message.text(path)}
        if message.role == "assistant":
            turn |= _assistant(message, path, f"call_{i}")
            calls = turn.get("tool_calls", [])
            called |= {call["id"]: call["function"]["name"] for call in calls}
            latest = calls[-1]["id"] if calls else latest
        elif message.role == "tool":
            turn |= _tool_result(message, path, called)
        elif message.role == "function":
            turn |= _function_result(message, path, latest)
        turns.append(turn)
    return turns


def _assistant(message: Message, path: str, legacy_id: str) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if thought := message.thought():
        more["reasoning_content"] = thought
    if message.tool_calls:
        more["tool_calls"] = [
            _call(call.id or f"{legacy_id}_{i}", call.called(f"{path}.tool_calls[{i}]"))
            for i, call in enumerate(message.tool_calls)
        ]
    elif message.function_call:
        more["tool_calls"] = [_call(legacy_id, message.function_call)]
    return more


def _call(id: str, function: FunctionCall) -> dict[str, Any]:
    named = {"name": function.name, "arguments": _arguments(function.arguments)}
    return {"id": id, "type": "function", "function": named}


def _arguments(given: str | dict[str, Any] | None) -> Any:
    """Templates print arguments as JSON themselves; what is no object stays the text it was."""
    if not isinstance(given, str):
        return given or {}
    try:
        read = json.loads(given or "{}")
    except (ValueError, RecursionError):
        return given
    return read if isinstance(read, dict) else given


def _tool_result(message: Message, path: str, called: dict[str, str]) -> dict[str, Any]:
    if not message.tool_call_id:
        raise missing(f"{path}.tool_call_id")
    name = message.name or called.get(message.tool_call_id)
    more = {"tool_call_id": message.tool_call_id}
    return more | {"name": name} if name else more


def _function_result(message: Message, path: str, latest: str) -> dict[str, Any]:
    if not message.name:
        raise missing(f"{path}.name")
    return {"role": "tool", "tool_call_id": latest or "call_0", "name": message.name}
