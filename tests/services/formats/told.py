"""Conversations, tools and answers that the tests of formats share."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from server.schemas.output import CallArguments, CallStart, Content, Part, Reasoning
from server.services.formats.base import Ask, Parser, Tool

WEATHER = Tool(
    "get_weather",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
    "The weather of a city",
)
CLOCK = Tool("get_time", {"type": "object", "properties": {}}, "The time")
SECRET = Tool("secret", {"type": "object", "properties": {}}, "Not to be called")
TOOLS = (WEATHER, CLOCK, SECRET)

CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "SYSTEM"},
    {"role": "user", "content": "QUESTION"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_abcdefghijklmnopqrstuvwx",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "PARIS", "days": 3}'},
            },
            {
                "id": "call_abcdefghijklmnopqrstuvwy",
                "type": "function",
                "function": {"name": "get_weather", "arguments": {"city": "ROME"}},
            },
        ],
    },
    {"role": "tool", "tool_call_id": "call_abcdefghijklmnopqrstuvwx", "content": "RESULT-A"},
    {"role": "tool", "tool_call_id": "call_abcdefghijklmnopqrstuvwy", "content": "RESULT-B"},
    {"role": "assistant", "content": "ANSWER", "reasoning_content": "REASONS"},
    {"role": "user", "content": "AND NOW?"},
]


def ask(mode: Any = "auto", **changes: Any) -> Ask:
    fields: dict[str, Any] = {"callable": frozenset(("get_weather", "get_time")), **changes}
    return Ask(tools=TOOLS, mode=mode, **fields)


def read(parser: Parser, pieces: Iterable[str], reason: Any = "stop") -> list[Part]:
    parts: list[Part] = []
    for piece in pieces:
        parts += parser.push(piece)
    return parts + parser.finish(reason)


def told(parts: Iterable[Part]) -> dict[str, Any]:
    """What a client makes of the parts. Fails where they break the order of an answer."""
    reasoning, content = "", ""
    calls: list[list[str]] = []
    for part in parts:
        match part:
            case Reasoning(text):
                assert text and not content and not calls, "reasoning comes first"
                reasoning += text
            case Content(text):
                assert text and not calls, "text after a call"
                content += text
            case CallStart(index, id, name):
                assert index == len(calls)
                assert id.startswith("call_") and len(id) == 29 and id[5:].isalnum()
                calls.append([name, ""])
            case CallArguments(index, text):
                assert text and index == len(calls) - 1
                calls[index][1] += text
    return {"reasoning": reasoning, "content": content, "calls": calls}


def valid(calls: Iterable[Iterable[str]]) -> list[tuple[str, Any]]:
    """Names with arguments, which must be JSON objects."""
    found = []
    for name, arguments in calls:
        value = json.loads(arguments)
        assert isinstance(value, dict)
        found.append((name, value))
    return found


def llama_cpp_source() -> Path:
    """The folder of llama.cpp's source beside the checkout; the test is skipped without one."""
    script = Path(__file__).parents[4] / "shared" / "peer" / "llama-cpp-source"
    if not script.exists():
        pytest.skip("peer/llama-cpp-source is not beside this checkout")
    done = subprocess.run([script], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip().splitlines()[-1])
