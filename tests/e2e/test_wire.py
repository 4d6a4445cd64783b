"""The bytes themselves: golden streams, headers, and what stays of a connection."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import httpx2
import pytest

from .conftest import Server, Start

pytestmark = pytest.mark.e2e

GOLDEN = Path(__file__).with_name("golden")
CHAT = "/v1/chat/completions"
CANONICAL: dict[str, dict[str, Any]] = {
    "usage.sse": {
        "model": "golden",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi!"},
        ],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    "stop.sse": {
        "model": "org/golden",
        "messages": [{"role": "user", "content": "né~never shown"}],
        "temperature": 0,
        "stop": ["~"],
        "stream": True,
    },
}
"""Of engines that do not guess: a token a step is a frame a token."""


def _normalised(stream: str) -> str:
    stream = re.sub(r"chatcmpl-[A-Za-z0-9]{24}", "chatcmpl-ID", stream)
    return re.sub(r'"created": \d{10}', '"created": CREATED', stream)


@pytest.mark.parametrize("name", CANONICAL)
def test_canonical_streams_are_byte_for_byte_the_golden_ones(server: Server, name: str) -> None:
    response = httpx2.post(server.base + CHAT, json=CANONICAL[name])
    found = _normalised(response.content.decode("ascii"))
    assert found == (GOLDEN / name).read_text(encoding="ascii")


def test_a_stream_has_the_headers_proxies_need(server: Server) -> None:
    response = httpx2.post(server.base + CHAT, json=CANONICAL["stop.sse"] | {"model": "echo"})
    headers = response.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
    assert "content-length" not in headers and "content-encoding" not in headers
    assert headers["x-request-id"]


def test_every_frame_is_one_ascii_line_of_json_and_done_is_the_last(server: Server) -> None:
    text = "line\nfeed \u2028 \u2029 \x85 🦊"
    messages = [{"role": "user", "content": text}]
    body = {"model": "echo", "messages": messages, "n": 2, "temperature": 0, "stream": True}
    raw = httpx2.post(server.base + CHAT, json=body).content
    assert raw.isascii()
    *frames, done, end = raw.split(b"\n\n")
    assert (done, end) == (b"data: [DONE]", b"")
    assert len(raw.decode().splitlines()) == 2 * (len(frames) + 1)
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in frames]
    for index in (0, 1):
        own = [c["choices"][0]["delta"] for c in chunks if c["choices"][0]["index"] == index]
        assert "".join(delta.get("content", "") for delta in own) == text


def test_completions_are_the_same_lines(server: Server) -> None:
    text = "line\nfeed \u2028 \u2029 \x85 🦊"
    body = {
        "model": "echo",
        "prompt": f"<|turn|>user\n{text}<|end|><|turn|>assistant\n",
        "n": 2,
        "temperature": 0,
        "max_tokens": 99,
        "logprobs": 2,
        "echo": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    raw = httpx2.post(f"{server.base}/v1/completions", json=body).content
    assert raw.isascii() and b"NaN" not in raw and b"Infinity" not in raw
    *frames, done, end = raw.split(b"\n\n")
    assert (done, end) == (b"data: [DONE]", b"")
    assert len(raw.decode().splitlines()) == 2 * (len(frames) + 1)
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in frames]
    same = ("id", "object", "created", "model", "system_fingerprint")
    assert len({tuple(chunk[key] for key in same) for chunk in chunks}) == 1
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"]
    for index in (0, 1):
        own = [chunk["choices"][0] for chunk in chunks[:-1]]
        own = [choice for choice in own if choice["index"] == index]
        assert "".join(choice["text"] for choice in own) == body["prompt"] + text
        assert [c["finish_reason"] for c in own if c["finish_reason"]] == ["stop"]


def test_sdks_read_on_over_signs_of_life(start: Start) -> None:
    """Some seconds of a slow answer, as a minute of silence would be."""
    server = start("echo=echo:rate=5", "ping=0.02")
    ask: dict[str, Any] = {"model": "echo", "temperature": 0, "stream": True}
    with server.client() as client:
        messages = [{"role": "user", "content": "slow"}]
        chunks = list(client.chat.completions.create(messages=messages, n=2, **ask))
        prompt = "<|turn|>user\nslow<|end|><|turn|>assistant\n"
        texts = list(client.completions.create(prompt=prompt, **ask))
    deltas = [chunk.choices[0] for chunk in chunks]
    for index in (0, 1):
        own = [choice.delta.content or "" for choice in deltas if choice.index == index]
        assert "".join(own) == "slow"
    silent = [c for c in deltas if c.delta.content is c.delta.role is c.finish_reason is None]
    assert len(silent) > 3
    assert "".join(text.choices[0].text for text in texts) == "slow"
    assert sum(not text.choices[0].text for text in texts) > 3
    raw = httpx2.post(server.base + CHAT, json={"messages": messages, **ask}, timeout=30).text
    lines = [line for line in raw.splitlines() if line]
    assert ": ping" in lines
    assert all(line == ": ping" or line.startswith("data: ") for line in lines)


def test_a_connection_serves_on_after_streams_and_errors(server: Server) -> None:
    body = CANONICAL["stop.sse"] | {"model": "echo"}
    with httpx2.Client(base_url=server.base) as client:
        streams = {}
        for _ in range(3):
            with client.stream("POST", CHAT, json=body) as response:
                response.read()
                network = response.extensions["network_stream"]
                streams[network.get_extra_info("client_addr")] = True
            assert client.post(CHAT, json={}).status_code == 400
            assert client.get("/v1/models").status_code == 200
    assert len(streams) == 1, "the connection was not reused"


def test_a_body_too_large_is_answered_and_not_read_to_its_end(start: Start) -> None:
    server = start(max_body_bytes=1024)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n" + b" " * 3000
        )
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"request_too_large"' in answer
    assert httpx2.get(server.base + "/livez").status_code == 200


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ten\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n" + b"a: b\r\n" * 10_000,
        b"",
    ],
)
def test_noise_on_the_port_harms_nobody(server: Server, noise: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(noise)
    assert httpx2.get(server.base + "/livez", timeout=5).status_code == 200
