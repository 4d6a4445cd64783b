"""Requests with a secret, and what would break a log line, in every place that a client fills."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2

SECRET = "canary"
NASTY = f'{SECRET}\r\n{{"event": "{SECRET}"}}\x1b[2J\x9b31m\u2028\u202e%s%(x)s{{}}{{0}}'
CHAT = "/v1/chat/completions"


def asked(model: str) -> list[tuple[str, Any]]:
    """Paths and bodies; a body in bytes is sent as it is."""
    return [(CHAT, {**_hi(model), **more}) for more in _chats()] + [
        (CHAT, _hi(NASTY)),
        (CHAT, json.dumps(_hi(model)).encode()[:-1] + NASTY.encode()),
        (CHAT, NASTY.encode()),
        (CHAT, b'{"' + SECRET.encode() + b'": ' + b"[" * 5000),
        ("/v1/completions", {"model": model, "prompt": NASTY, "suffix": NASTY, "max_tokens": 3}),
        ("/v1/completions", {"model": model, "prompt": NASTY, "max_tokens": 3, "logprobs": 2}),
        ("/v1/completions", {"model": model, "prompt": NASTY, "echo": True, "max_tokens": 0}),
        ("/v1/completions", {"model": model, "prompt": [NASTY, 7], "max_tokens": 3}),
        ("/v1/completions", {"model": model, "prompt": NASTY, "best_of": NASTY}),
        ("/v1/embeddings", {"model": model, "input": NASTY}),
        ("/v1/embeddings", {"model": model, "input": [[NASTY]], "encoding_format": NASTY}),
        ("/v1/rerank", {"model": model, "query": NASTY, "documents": [NASTY, {"text": NASTY}]}),
        ("/tokenize", {"model": model, "content": NASTY}),
        ("/detokenize", {"model": model, "tokens": [NASTY]}),
        ("/apply-template", {**_hi(model), "tools": [_tool(SECRET)]}),
        (f"/v1/models/{quote(NASTY, safe='')}", None),
        (f"/{quote(NASTY, safe='')}?{quote(NASTY)}={quote(NASTY)}", None),
        (f"{CHAT}?key={SECRET}", _hi(model)),
    ]


def _hi(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": NASTY}],
        "max_tokens": 5,
        "temperature": 0,
    }


def _tool(name: str, **more: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {name: {"type": "string", **more}}}
    function = {"name": name[:60], "description": NASTY, "parameters": parameters}
    return {"type": "function", "function": function}


def _schema(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    named = {"name": SECRET, "schema": schema, **more}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _chats() -> Iterator[dict[str, Any]]:
    """What makes a chat's request one of each kind, good and bad."""
    file = {"filename": NASTY, "file_data": base64.b64encode(NASTY.encode()).decode()}
    odd_parts = [
        {"type": "image_url", "image_url": {"url": f"https://{SECRET}.example/{NASTY}"}},
        {"type": "file", "file": file},
        {"type": "input_audio", "input_audio": {"data": SECRET, "format": SECRET}},
        {"type": NASTY, NASTY: NASTY},
    ]
    yield from ({}, {"stream": True}, {"n": 2, "logprobs": True, "top_logprobs": 2})
    yield {"user": NASTY, "metadata": {SECRET: NASTY}, "stop": [NASTY], NASTY: NASTY}
    yield {"stop": NASTY * 500}
    yield {"tools": [_tool(SECRET)], "tool_choice": "required", "max_tokens": 60}
    yield {"tools": [_tool(SECRET)], "tool_choice": {"type": "function", "function": {"name": "x"}}}
    yield {"tools": [_tool(NASTY)]}
    yield {"tools": [_tool(SECRET, pattern=f"({SECRET}")], "tool_choice": "required"}
    yield _schema({"type": "object", "properties": {SECRET: {"enum": [NASTY]}}}, strict=True)
    yield _schema({"type": SECRET})
    yield _schema({"$ref": f"https://{SECRET}.example"}, strict=True)
    yield _schema({"type": "string", "pattern": f"(?<={SECRET})*("})
    yield {"response_format": {"type": NASTY}}
    yield {"grammar": f'root ::= "{SECRET}"'}
    yield {"grammar": f'root ::= {SECRET} "'}
    yield {"grammar": NASTY}
    yield {"grammar": f"root ::= {SECRET}\n{SECRET} ::= {SECRET} | {SECRET}"}
    yield {"guided_regex": f"({SECRET}"}
    yield {"guided_regex": f"{SECRET}{{0,4000}}{{0,4000}}"}
    yield {"logit_bias": {NASTY: 1}}
    yield {"temperature": NASTY}
    yield {"chat_template_kwargs": {SECRET: NASTY}}
    yield {"messages": [{"role": NASTY, "content": NASTY}]}
    yield {"messages": NASTY}
    for part in odd_parts:
        yield {"messages": [{"role": "user", "content": [part]}]}
    call = {"id": NASTY, "type": "function", "function": {"name": SECRET, "arguments": NASTY}}
    yield {
        "messages": [
            {"role": "user", "content": NASTY},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": NASTY, "content": NASTY},
        ]
    }


def send_all(base: str, model: str, key: str = "none") -> list[int]:
    """Every request to `model`; the statuses. `key` is the server's own."""
    headers = {
        "authorization": f"Bearer {key}",
        "user-agent": f"{SECRET}/1 %s{{}}",
        "cookie": f"session={SECRET}",
        "referer": f"https://{SECRET}.example/",
        "x-request-id": f"{SECRET} with spaces is no id",
        f"x-{SECRET}": SECRET,
    }
    statuses = []
    with httpx2.Client(base_url=base, headers=headers, timeout=60) as client:
        for path, body in asked(model):
            if body is None:
                statuses.append(client.get(path).status_code)
                continue
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            json_type = {"content-type": "application/json"}
            statuses.append(client.post(path, content=raw, headers=json_type).status_code)
        for wrong in ({"content-type": NASTY[:6]}, {"content-encoding": SECRET}):
            statuses.append(client.post(CHAT, content=b"{}", headers=wrong).status_code)
        wrong_key = {"authorization": f"Bearer {SECRET}-wrong", "x-api-key": SECRET}
        statuses.append(client.get("/v1/models", headers=wrong_key).status_code)
        statuses.append(client.request(SECRET, f"/{SECRET}").status_code)
    return statuses


def send_raw(port: int) -> None:
    """What no HTTP library sends."""
    host = b"Host: 127.0.0.1\r\n"
    secret = SECRET.encode()
    for raw in (
        secret + b"\x1b[2J / HTTP/1.1\r\n" + host + b"\r\n",
        b"GET /" + secret + b"\x1b[2J\xff HTTP/1.1\r\n" + host + b"\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"X-\x1b" + secret + b": a\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"X-A: " + secret + b"\nX-B: \x1b[2J\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\n" + host + b"Content-Length: " + secret + b"\r\n\r\n",
        secret * 10 + b"\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(raw)
            sock.settimeout(1)
            with contextlib.suppress(OSError):
                sock.recv(4096)
