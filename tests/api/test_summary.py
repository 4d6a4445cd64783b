"""A request is one log line, whatever its end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from server.core.errors import EngineError
from server.core.types import Admitted, Embedded, Finished, GenerateRequest, TokenDelta, Usage
from tests.fakes import FakeEngine, Moment, model_info, says

from .conftest import Serve, make_app

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "a canary"}]}
STREAM = HI | {"stream": True}


class Told(logging.Handler):
    """The fields of every summary."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []
        self.levels: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        plain = logging.makeLogRecord({}).__dict__
        self.levels.append(record.levelno)
        self.lines.append({k: v for k, v in record.__dict__.items() if k not in plain})


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    log, handler = logging.getLogger("ingle.request"), Told()
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield handler
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


@pytest.mark.parametrize("body", [HI, STREAM])
async def test_an_answer_in_figures(serve: Serve, told: Told, body: dict[str, Any]) -> None:
    engine = FakeEngine(says("Hello", prompt=7, cached=3))
    async with serve(engine) as client:
        response = await client.post(CHAT, json=body, headers={"x-request-id": "mine"})
    (line,) = told.lines
    assert response.status_code == 200
    assert told.levels == [logging.INFO]
    times = {name: line.pop(name) for name in ("ttft_ms", "duration_ms", "tokens_per_second")}
    assert 0 <= times["ttft_ms"] <= times["duration_ms"]
    assert times["tokens_per_second"] > 0
    assert line.pop("route").endswith("/chat/completions")
    assert line == {
        "id": "mine",
        "method": "POST",
        "status": 200,
        "model": "fake",
        "queue_ms": 250.0,
        "prompt_tokens": 7,
        "cached_tokens": 3,
        "completion_tokens": 5,
        "finish": "stop",
    }


def _breaks(*requests: GenerateRequest) -> list[Moment]:
    return [
        [Admitted(r.id, 7) for r in requests],
        [TokenDelta(r.id, "H", (72,)) for r in requests],
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineError("it quotes a canary"), "engine_error"),
        (ValueError("a canary"), "internal_error"),
    ],
)
@pytest.mark.parametrize("body", [HI, STREAM])
async def test_a_failure_by_its_code(
    serve: Serve, told: Told, body: dict[str, Any], error: Exception, code: str
) -> None:
    engine = FakeEngine(lambda requests: [*_breaks(*requests), error])
    async with serve(engine) as client:
        response = await client.post(CHAT, json=body)
    (line,) = told.lines
    assert response.status_code == (200 if body is STREAM else 500)
    assert (line["status"], line["error"]) == (response.status_code, code)
    assert (line["finish"], line["completion_tokens"]) == ("error", 1)


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "model"),
    [
        (CHAT, HI | {"model": "a canary"}, 404, "model_not_found", "other"),
        (CHAT, HI | {"model": "alias", "n": 0}, 400, "integer_below_min_value", None),
        (CHAT, {"a canary": 1, "model": "fake"}, 400, "missing_required_parameter", None),
        (CHAT, HI | {"model": "fake", "functions": [], "n": 99}, 400, "integer_above", "fake"),
        ("/canary", {}, 404, None, None),
    ],
)
async def test_a_refusal_says_nothing_of_what_was_sent(
    serve: Serve,
    told: Told,
    path: str,
    body: dict[str, Any],
    status: int,
    code: str | None,
    model: str | None,
) -> None:
    async with serve(aliases={"alias": "fake"}) as client:
        await client.post(path, json=body)
    (line,) = told.lines
    assert (line["status"], line.get("model")) == (status, model)
    assert str(line.get("error")).startswith(str(code))
    assert "canary" not in str(line)


@pytest.mark.parametrize(("body", "status"), [(HI, 499), (STREAM, 200)])
async def test_a_client_that_goes(told: Told, body: dict[str, Any], status: int) -> None:
    gone = asyncio.Event()

    def script(requests: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        yield from _breaks(*requests)
        gone.set()
        yield asyncio.Event()

    incoming = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_: dict[str, Any]) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "raw_path": CHAT.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")],
        "scheme": "http",
        "server": ("127.0.0.1", 80),
    }
    app, _ = make_app(FakeEngine(script))
    async with asyncio.timeout(10):
        await app(scope, receive, send)
    (line,) = told.lines
    assert (line["status"], line["client_gone"], line["finish"]) == (status, True, "cancelled")


async def test_who_only_watches_is_told_of_in_debug(serve: Serve, told: Told) -> None:
    async with serve() as client:
        for path in ("/livez", "/readyz", "/health", "/v1/health", "/metrics"):
            assert (await client.get(path)).status_code == 200
    assert told.levels == [logging.DEBUG] * 5


@pytest.mark.parametrize("log_prompts", [False, True])
async def test_prompts_are_told_where_that_is_wanted(
    serve: Serve, told: Told, log_prompts: bool
) -> None:
    embedder = FakeEngine(name="vectors", info=model_info(kind="embed", embedding_size=2))
    embedder.vectors = lambda r: [
        [
            Admitted(r.id, 2),
            Embedded(r.id, 1, bytes(8)),
            Finished(r.id, "stop", Usage(2, 0, 0), 0.0),
        ]
    ]
    async with serve(FakeEngine(), embedder, log_prompts=log_prompts) as client:
        asked = [
            await client.post(CHAT, json=HI | {"model": "fake"}),
            await client.post("/v1/completions", json={"model": "fake", "prompt": "a canary"}),
            await client.post("/v1/completions", json={"model": "fake", "prompt": [3, 4]}),
            await client.post("/v1/embeddings", json={"model": "vectors", "input": "a canary"}),
        ]
    assert [response.status_code for response in asked] == [200] * 4
    prompts = [line.get("prompt", "") for line in told.lines]
    if log_prompts:
        assert "a canary" in prompts[0]
        assert prompts[1:] == ["a canary", "[3, 4]", "a canary"]
    else:
        assert "canary" not in str(told.lines)
