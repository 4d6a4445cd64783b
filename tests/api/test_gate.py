"""Places, quotas and deadlines as clients of the real app meet them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from starlette.types import Message

from server.api.routes import gated_routes, openai_routes
from server.core.types import Admitted, GenerateRequest, Started, TokenDelta
from tests.fakes import FakeEngine, Moment, says

from .conftest import Serve, make_app

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
HI: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}


async def test_the_body_of_a_refused_request_is_not_read() -> None:
    """Nor is it asked for, where the client waits to be."""
    app, _ = make_app(max_waiting=1)
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("nobody may read")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    headers.append((b"expect", b"100-continue"))
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers}
    scope |= {"query_string": b"", "http_version": "1.1", "root_path": ""}
    with app.state.ingle.admission.admit():
        await app(scope, receive, send)
    assert sent[0]["status"] == 503
    told = dict(sent[0]["headers"])
    assert told[b"connection"] == b"close" and b"x-request-id" in told


async def test_quotas_are_told_and_kept(serve: Serve) -> None:
    quotas = {"key_tokens_per_minute": 600, "key_max_requests": 3}
    async with serve(FakeEngine(says("Hello", prompt=590)), **quotas) as client:
        first = await client.post(CHAT, json=HI)
        second = await client.post(CHAT, json=HI)
        refused = await client.post(CHAT, json=HI)
        metrics = (await client.get("/metrics")).text
    assert (first.status_code, second.status_code, refused.status_code) == (200, 200, 429)
    assert first.headers["x-ratelimit-limit-tokens"] == "600"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) <= 10
    assert first.headers["x-ratelimit-remaining-requests"] == "2"
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    error = refused.json()["error"]
    assert (error["code"], error["type"], error["param"]) == ("rate_limit_exceeded", "tokens", None)
    assert 30_000 < int(refused.headers["retry-after-ms"]) <= 60_000
    assert 'ingle_requests_refused_total{reason="key_tokens"} 1.0' in metrics


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_may_wait_for_a_slot_only_so_long(serve: Serve, stream: bool) -> None:
    engine = FakeEngine(lambda asked: [[Admitted(r.id, 3, 2) for r in asked], asyncio.Event()])
    async with serve(engine, queue_seconds=0.1) as client:
        response = await client.post(CHAT, json=HI | {"stream": stream})
        metrics = (await client.get("/metrics")).text
    assert engine.closed.is_set()
    assert response.headers["x-queue-position"] == "2"
    assert response.status_code == (200 if stream else 503)
    assert '"code":"server_overloaded"' in response.text.replace(" ", "")
    assert 'ingle_requests_refused_total{reason="queue_seconds"} 1.0' in metrics
    assert "ingle_waiting_prompt_tokens 0.0" in metrics


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_may_take_only_so_long(serve: Serve, stream: bool) -> None:
    def script(asked: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        yield [Admitted(r.id, 3) for r in asked]
        yield [Started(r.id) for r in asked]
        yield [TokenDelta(r.id, "So", (1,)) for r in asked]
        yield asyncio.Event()

    engine = FakeEngine(script)
    async with serve(engine, request_seconds=0.15, queue_seconds=0.1) as client:
        response = await client.post(CHAT, json=HI | {"stream": stream})
    assert engine.closed.is_set()
    assert '"code":"timeout"' in response.text.replace(" ", "")
    if stream:
        assert response.text.endswith("data: [DONE]\n\n") and '"So"' in response.text
    else:
        assert (response.status_code, response.headers["x-should-retry"]) == (504, "false")


def test_every_route_that_reads_a_body_asks_for_a_place() -> None:
    routes = iter_route_contexts(openai_routes().routes)
    posts = {route.path for route in routes if "POST" in (route.methods or ())}
    assert posts and {path for path in gated_routes() if path in posts} == posts
    assert set(gated_routes()) == posts | {f"/v1{path}" for path in posts}


@pytest.mark.parametrize("path", ["/v1/chat/completions%0A", "/v1//chat/completions"])
async def test_a_path_spelled_otherwise_is_no_way_past_the_gate(serve: Serve, path: str) -> None:
    engine = FakeEngine()
    async with serve(engine) as client:
        response = await client.post(path, json=HI)
    assert (response.status_code, engine.requests) == (404, ())


async def test_who_has_no_key_takes_no_place(serve: Serve) -> None:
    async with serve(api_key="right", max_waiting=0, key_max_requests=1) as client:
        wrong = await client.post(CHAT, json=HI, headers={"x-api-key": "wrong"})
        right = await client.post(CHAT, json=HI, headers={"x-api-key": "right"})
    assert (wrong.status_code, right.status_code) == (401, 200)
    assert "x-ratelimit-limit-requests" not in wrong.headers
