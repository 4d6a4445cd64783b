"""Embeddings through the real SDK and a real uvicorn, beside an engine that chats."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai.types import CreateEmbeddingResponse

from .conftest import Server, Start, _serving, until

pytestmark = pytest.mark.e2e

TEXTS = ["red apples", "Hi 🦊, 跳过 naïve", "a\u2028b \\ud83d"]


@pytest.fixture(scope="module")
def serving() -> Iterator[Server]:
    with _serving() as start:
        yield start("echo=echo:", "vec=echo:embed,size=48", "rank=echo:rerank", ctx=512)


@pytest.fixture
def client(serving: Server) -> Iterator[openai.OpenAI]:
    with serving.client() as made:
        yield made


def _post(server: Server, path: str, **body: Any) -> httpx2.Response:
    return httpx2.post(f"{server.base}/v1/{path}", json=body, timeout=30)


def test_the_sdk_default_equals_floats_and_bytes(client: openai.OpenAI, serving: Server) -> None:
    default = client.embeddings.create(model="vec", input=TEXTS)
    floats = client.embeddings.create(model="vec", input=TEXTS, encoding_format="float")
    raw = _post(serving, "embeddings", model="vec", input=TEXTS, encoding_format="base64").json()
    body = floats.model_dump_json(exclude_unset=True)
    CreateEmbeddingResponse.model_validate_json(body, strict=True)
    assert [item.index for item in default.data] == [0, 1, 2]
    for ours, plain, packed in zip(default.data, floats.data, raw["data"], strict=True):
        data = base64.b64decode(packed["embedding"])
        assert len(data) == 4 * 48
        assert ours.embedding == pytest.approx(plain.embedding, abs=1e-9)
        assert struct.pack("<48f", *plain.embedding) == data
    tokens = sum(len(text.encode()) for text in TEXTS)
    assert floats.usage.prompt_tokens == floats.usage.total_tokens == tokens


def test_token_ids_and_text_give_the_same(client: openai.OpenAI) -> None:
    text = client.embeddings.create(model="vec", input="hello").data[0].embedding
    ids = client.embeddings.create(model="vec", input=[*b"hello"]).data[0].embedding
    lists = client.embeddings.create(model="vec", input=[[*b"hello"], [*b"other"]]).data
    assert text == ids == lists[0].embedding != lists[1].embedding
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model="vec", input=[[15339, 1917]])


def test_two_thousand_texts_come_back_in_order(client: openai.OpenAI) -> None:
    texts = [f"text {i}" for i in range(2048)]
    answer = client.embeddings.create(model="vec", input=texts)
    assert [item.index for item in answer.data] == list(range(2048))
    last = client.embeddings.create(model="vec", input=texts[-1]).data[0].embedding
    assert answer.data[-1].embedding == last


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        ({"input": []}, "empty_array"),
        ({"input": ""}, "invalid_value"),
        ({"input": ["a", "b" * 513]}, "context_length_exceeded"),
        ({"input": "a", "dimensions": 49}, "integer_above_max_value"),
        ({"input": "a", "model": "echo"}, "unsupported_value"),
        ({"input": "a", "model": "rank"}, "unsupported_value"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refusals(client: openai.OpenAI, ask: dict[str, Any], code: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(**{"model": "vec", **ask})
    assert caught.value.code == code


def test_dimensions(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="vec", input="red apples", dimensions=5)
    vector = answer.data[0].embedding
    assert len(vector) == 5
    assert sum(number**2 for number in vector) == pytest.approx(1, abs=1e-3)


def test_documents_are_ranked(serving: Server) -> None:
    documents = ["nothing", {"text": "green apples"}, "red green apples"]
    ask = {"model": "rank", "query": "red green apples", "documents": documents, "top_n": 2}
    body = _post(serving, "rerank", **ask, return_documents=True).json()
    assert [result["index"] for result in body["results"]] == [2, 1]
    assert body["results"][1]["document"]["text"] == "green apples"
    assert body["results"][0]["relevance_score"] == 1


def test_a_client_that_leaves_frees_the_engine(start: Start) -> None:
    server = start("vec=echo:embed,tokens=1000", ctx=512)
    with pytest.raises(openai.APITimeoutError), server.client() as client:
        client.with_options(timeout=1).embeddings.create(model="vec", input=["x" * 100] * 2000)
    until(lambda: server.metric("ingle_requests_running", "vec") == 0, 5)
    with server.client() as client:
        assert client.embeddings.create(model="vec", input="next").data
    finished = httpx2.get(f"{server.base}/metrics", timeout=5).text
    assert 'ingle_requests_finished_total{model_name="vec",outcome="cancelled"} 1.0' in finished
    assert 'ingle_requests_finished_total{model_name="vec",outcome="stop"} 1.0' in finished


def test_the_tokens_of_a_text_are_told(serving: Server) -> None:
    for model in ("vec", "rank"):
        told = _post(serving, "tokenize", model=model, content="é!", with_pieces=True).json()
        assert [entry["id"] for entry in told["tokens"]] == [*"é!".encode()]
        text = _post(serving, "detokenize", model=model, tokens=[*"é!".encode()]).json()
        assert text == {"content": "é!"}
