"""A crash between the bytes of a character, or of a stop string, is not to be seen in the text."""

from __future__ import annotations

import json

import httpx2
import pytest

from tests.api.streams import chunks_of
from tests.e2e.conftest import Start

pytestmark = pytest.mark.e2e

SAID = "ab 👩‍👩‍👧 漢字 🦊 stop it 🦊🦊 end"
STOP = "🦊🦊 en"
BEFORE = SAID.partition(STOP)[0]
CUTS = (5, 11, 24, 45, 49)
"""How many of its bytes are out when the engine dies: in a woman, in the joint after her, in a
character of three bytes, in the first and in the second fox of the stop string."""


@pytest.mark.parametrize("cut", CUTS)
def test_what_was_half_said_is_said_once(start: Start, cut: int) -> None:
    """The prompt's step says the first byte, each step after it the next one."""
    server = start("echo=echo:rate=100", fault_injection=True, faults=f"abort@step={cut + 1}")
    messages = [{"role": "user", "content": SAID}]
    body = {"model": "echo", "messages": messages, "temperature": 0, "stop": [STOP]}
    with httpx2.Client(base_url=server.base, timeout=20) as client:
        streamed = client.post("/v1/chat/completions", json=body | {"stream": True})
        assert server.metric("ingle_engine_restarts_total") == 1
        whole = client.post("/v1/chat/completions", json=body).json()
    chunks = chunks_of(streamed.text)
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"] == BEFORE
    assert "\ufffd" not in json.dumps(chunks, ensure_ascii=False)
    assert whole["usage"]["completion_tokens"] == len((BEFORE + STOP).encode())
