"""Golden streams: the exact bytes of canonical answers, in one file each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeEngine, FakeFormat, says

from .conftest import Serve
from .streams import chunks_of

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).with_name("golden")
TOOLS = [{"type": "function", "function": {"name": name}} for name in "fg"]
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"a": {}}}},
}
CANONICAL: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("Hé!", {}),
    "reasoning": ("‹hm›7", {}),
    "one-call": ("«f:{}»", {"tools": TOOLS}),
    "two-calls": ('So «f:{}»«g:{"a":1}»', {"tools": TOOLS}),
    "reasoning-call": ("‹hm›«g:{}»", {"tools": TOOLS, "tool_choice": "required"}),
    "json-schema": ('{"a":1}', {"response_format": SCHEMA}),
    "function-call": ("«f:{}»", {"functions": [{"name": "f"}]}),
    "logprobs": ("‹h›Hi", {"logprobs": True, "top_logprobs": 2}),
    "two-choices": ("‹h›7", {"n": 2}),
}
USAGE: dict[str, dict[str, Any]] = {
    "absent": {},
    "off": {"stream_options": {"include_usage": False}},
    "on": {"stream_options": {"include_usage": True}},
}


def _normalised(stream: str) -> str:
    stream = re.sub(r"chatcmpl-[A-Za-z0-9]{24}", "chatcmpl-ID", stream)
    return re.sub(r'"created": \d{10}', '"created": CREATED', stream)


@pytest.mark.parametrize("usage", USAGE)
@pytest.mark.parametrize("name", CANONICAL)
async def test_canonical_streams_are_byte_for_byte_the_golden_ones(
    serve: Serve, name: str, usage: str
) -> None:
    text, more = CANONICAL[name]
    messages = [{"role": "user", "content": "Hi"}]
    body = {"messages": messages, "stream": True, **more, **USAGE[usage]}
    async with serve(FakeEngine(says(text)), format=FakeFormat()) as client:
        response = await client.post("/v1/chat/completions", json=body)
    chunks_of(response.text, choices=more.get("n", 1), include_usage=usage == "on")
    file = GOLDEN / f"{name}{'-usage' if usage == 'on' else ''}.sse"
    assert _normalised(response.text) == file.read_text(encoding="ascii")
