"""A client that goes between the last token and the `[DONE]`: all it had is given back once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import httpx2
import pytest

from tests.fakes import FakeEngine

from .conftest import make_app

pytestmark = pytest.mark.anyio

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/v1/chat/completions",
    "raw_path": b"/v1/chat/completions",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 2),
}
BODY = {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "n": 2}


@pytest.mark.parametrize("last", ['"content": "o"', '"finish_reason": "stop"', "[DONE]"])
async def test_who_goes_at_the_very_end_is_counted_once(last: str) -> None:
    engine = FakeEngine()
    app, _ = make_app(engine)
    read, gone = asyncio.Event(), asyncio.Event()
    heard = b""

    async def receive() -> MutableMapping[str, Any]:
        if not read.is_set():
            read.set()
            return {"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal heard
        heard += message.get("body", b"")
        if last.encode() in heard:
            gone.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(10):
        await app(dict(SCOPE), receive, send)
        assert gone.is_set()
        await engine.closed.wait()
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        lines = (await client.get("/metrics")).text.splitlines()
        answer = await client.post("/v1/chat/completions", json=BODY | {"stream": False})
    ended = [line for line in lines if line.startswith("ingle_requests_finished_total")]
    assert sum(float(line.split()[-1]) for line in ended) == 1
    assert answer.status_code == 200
    assert app.state.ingle.admission.inside == 0
