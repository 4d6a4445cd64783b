"""Embeddings and reranking over the real ASGI app."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

import httpx2
import pytest

from server.core.errors import ContextOverflow
from tests.fakes import FakeEngine, model_info, vectors

from .conftest import Serve

pytestmark = pytest.mark.anyio

ROWS = ((0.6, 0.8), (1.0, 0.0), (0.0, 1.0))


def _embedder(*rows: tuple[float, ...], name: str = "embedder", **info: Any) -> FakeEngine:
    info = {"kind": "embed", "embedding_size": 2, "chat_template": None, **info}
    engine = FakeEngine(name=name, info=model_info(**info))
    engine.vectors = vectors(*rows)
    return engine


def _reranker(*scores: float) -> FakeEngine:
    rows = tuple((score,) for score in scores)
    return _embedder(*rows, name="reranker", kind="rerank", embedding_size=0)


def _error(answer: httpx2.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["code"]


async def test_floats_unless_base64_is_asked_for(serve: Serve) -> None:
    ask = {"model": "embedder", "input": ["a", "b", "c"], "user": "me"}
    async with serve(_embedder(*ROWS)) as client:
        plain = await client.post("/v1/embeddings", json=ask)
        packed = await client.post("/embeddings", json=ask | {"encoding_format": "base64"})
    assert plain.headers["content-type"] == "application/json"
    body = plain.json()
    assert body["object"] == "list" and body["model"] == "embedder"
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [item["index"] for item in body["data"]] == [0, 1, 2]
    for item, other, row in zip(body["data"], packed.json()["data"], ROWS, strict=True):
        assert item["object"] == "embedding"
        assert item["embedding"] == pytest.approx(row)
        assert base64.b64decode(other["embedding"]) == struct.pack("<2f", *row)


async def test_many_vectors_are_written_in_order(serve: Serve) -> None:
    rows = tuple((float(i), 1.0) for i in range(100))
    async with serve(_embedder(*rows)) as client:
        answer = await client.post("/v1/embeddings", json={"input": ["x"] * 100})
    assert [item["embedding"][0] for item in answer.json()["data"]] == list(range(100))


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": []}, "input", "empty_array"),
        ({"input": ["a", ""]}, "input[1]", "invalid_value"),
        ({"input": [1, 300]}, "input", "invalid_value"),
        ({"encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"dimensions": 0}, "dimensions", "integer_below_min_value"),
        ({"dimensions": 3}, "dimensions", "integer_above_max_value"),
        ({"dimensions": 1}, "dimensions", "unsupported_value"),
        ({"dimensions": "2"}, "dimensions", "invalid_type"),
    ],
    ids=str,
)
async def test_what_cannot_be_done_is_refused(
    serve: Serve, fields: dict[str, Any], param: str, code: str
) -> None:
    engine = _embedder()
    async with serve(engine) as client:
        answer = await client.post(
            "/v1/embeddings", json={"model": "embedder", "input": "a", **fields}
        )
    assert _error(answer) == (400, param, code)
    assert engine.embedded is None


async def test_input_is_required(serve: Serve) -> None:
    async with serve(_embedder()) as client:
        answer = await client.post("/v1/embeddings", json={"model": "embedder"})
    assert _error(answer) == (400, "input", "missing_required_parameter")


async def test_dimensions_reach_a_model_that_is_made_for_them(serve: Serve) -> None:
    engine = _embedder(matryoshka=True)
    async with serve(engine) as client:
        for dimensions in (1, 2):
            ask = {"input": "a", "dimensions": dimensions}
            assert (await client.post("/v1/embeddings", json=ask)).status_code == 200
            assert engine.embedded is not None and engine.embedded.dimensions == dimensions


async def test_a_refusal_of_the_engine_is_the_answer(serve: Serve) -> None:
    engine = _embedder()
    engine.vectors = lambda _: [ContextOverflow.of(600, 512, param="input[3]")]
    async with serve(engine) as client:
        answer = await client.post("/v1/embeddings", json={"input": ["a"] * 4})
    assert _error(answer) == (400, "input[3]", "context_length_exceeded")
    assert "maximum context length is 512 tokens" in answer.json()["error"]["message"]


async def test_documents_are_ranked(serve: Serve) -> None:
    engine = _reranker(0.25, 0.75, 0.5)
    ask = {"model": "reranker", "query": "q", "documents": ["a", {"text": "b"}, "c"], "top_n": 2}
    async with serve(engine) as client:
        for path in ("/v1/rerank", "/rerank", "/v1/reranking"):
            answer = await client.post(path, json=ask | {"return_documents": True})
            body = answer.json()
            assert [result["index"] for result in body["results"]] == [1, 2]
            assert body["results"][0]["document"] == {"text": "b"}
            assert body["model"] == "reranker"
    assert engine.embedded is not None
    assert (engine.embedded.query, engine.embedded.texts) == ("q", ("a", "b", "c"))


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"documents": []}, "documents", "empty_array"),
        ({"documents": [{"txt": "b"}]}, "documents[0].text", "missing_required_parameter"),
        ({"documents": ["a", {"text": 5}]}, "documents[1].text", "invalid_type"),
        ({"documents": ["a", 5]}, "documents[1]", "invalid_type"),
        ({"documents": ["a"] * 2049}, "documents", "array_above_max_length"),
        ({"query": ""}, "query", "invalid_value"),
        ({"query": None}, "query", "invalid_type"),
        ({"top_n": 0}, "top_n", "integer_below_min_value"),
        ({"rank_fields": ["title"]}, "rank_fields", "unsupported_parameter"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_ranking_that_cannot_be_done_is_refused(
    serve: Serve, fields: dict[str, Any], param: str, code: str
) -> None:
    ask = {"model": "reranker", "query": "q", "documents": ["a"], **fields}
    async with serve(_reranker(1.0)) as client:
        assert _error(await client.post("/v1/rerank", json=ask)) == (400, param, code)


ASKS: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "embeddings": {"input": "hi"},
    "rerank": {"query": "q", "documents": ["a"]},
}
KINDS = {"fake": "chat/completions", "embedder": "embeddings", "reranker": "rerank"}


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("path", ASKS)
async def test_each_model_is_asked_for_what_it_does(serve: Serve, model: str, path: str) -> None:
    async with serve(FakeEngine(), _embedder(), _reranker(1.0)) as client:
        answer = await client.post(f"/v1/{path}", json=ASKS[path] | {"model": model})
        unnamed = await client.post(f"/v1/{path}", json=ASKS[path])
    assert unnamed.status_code == 200, "one model can do it"
    if KINDS[model] == path:
        assert answer.status_code == 200
    else:
        assert _error(answer) == (400, "model", "unsupported_value")
        message = answer.json()["error"]["message"]
        able = next(name for name, does in KINDS.items() if does == path)
        assert f"/v1/{KINDS[model]}" in message and able in message


async def test_capabilities_are_listed(serve: Serve) -> None:
    async with serve(FakeEngine(), _embedder(), _reranker(1.0)) as client:
        listed = (await client.get("/v1/models")).json()["data"]
    found = {model["id"]: model["capabilities"] for model in listed}
    assert found == {
        "fake": ["completion", "chat"],
        "embedder": ["embedding"],
        "reranker": ["rerank"],
    }


async def test_a_client_that_goes_away_cancels(serve: Serve) -> None:
    engine = _embedder()
    reached = asyncio.Event()

    def waits(_: object) -> Any:
        reached.set()
        yield asyncio.Event()

    engine.vectors = waits
    async with serve(engine) as client:
        asking = asyncio.ensure_future(client.post("/v1/embeddings", json={"input": "a"}))
        async with asyncio.timeout(5):
            await reached.wait()
            asking.cancel()
            await engine.closed.wait()
