"""/tokenize, /detokenize and /apply-template through the real app, with and without /v1."""

from __future__ import annotations

from typing import Any

import pytest

from server.core.errors import ModelLoading
from tests.fakes import FakeEngine, model_info

from .conftest import Serve

pytestmark = pytest.mark.anyio


async def _post(serve: Serve, path: str, engine: FakeEngine | None = None, **body: Any) -> Any:
    async with serve(engine or FakeEngine()) as client:
        plain, v1 = await client.post(path, json=body), await client.post(f"/v1{path}", json=body)
    assert plain.json() == v1.json()
    assert plain.status_code == v1.status_code
    return plain.json() if plain.status_code == 200 else (plain.status_code, plain.json()["error"])


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"content": "Hi"}, [72, 105]),
        ({"content": "Hi", "add_special": True}, [1, 72, 105]),
        ({"content": "<|end|>"}, [256]),
        ({"content": "<|end|>", "parse_special": True}, [256]),
        ({"content": "<|end|>", "parse_special": False}, [*b"<|end|>"]),
        ({"content": "<|end|>", "parse_special": None, "add_special": None}, [256]),
        ({"content": ""}, []),
        ({"content": "Hi", "model": "fake"}, [72, 105]),
    ],
)
async def test_text_to_tokens(serve: Serve, body: Any, tokens: list[int]) -> None:
    assert await _post(serve, "/tokenize", **body) == {"tokens": tokens}


async def test_pieces_are_text_or_the_bytes_of_part_of_a_character(serve: Serve) -> None:
    answer = await _post(serve, "/tokenize", content="aá", with_pieces=True)
    assert answer["tokens"] == [
        {"id": 97, "piece": "a"},
        {"id": 0xC3, "piece": [0xC3]},
        {"id": 0xA1, "piece": [0xA1]},
    ]


@pytest.mark.parametrize(
    ("tokens", "content"), [([72, 105, 256], "Hi<|end|>"), ([0xC3, 0xA1], "á"), ([], "")]
)
async def test_tokens_to_text(serve: Serve, tokens: list[int], content: str) -> None:
    assert await _post(serve, "/detokenize", tokens=tokens) == {"content": content}


async def test_a_chat_becomes_the_prompt_it_would_be_answered_to(serve: Serve) -> None:
    messages = [{"role": "system", "content": "Be <|end|>."}, {"role": "user", "content": "Hi"}]
    answer = await _post(serve, "/apply-template", messages=messages)
    assert answer == {"prompt": "<|system|>Be <|end|>.<|end|><|user|>Hi<|end|>"}


async def test_what_is_for_the_answer_does_nothing_to_the_prompt(serve: Serve) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 9, "stop": 5}
    async with serve() as client:
        response = await client.post("/apply-template", json=body)
    assert response.json() == {"prompt": "<|user|>Hi<|end|>"}
    assert response.headers["x-ignored-params"] == "stop,temperature"


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("/tokenize", {}, 400, "missing_required_parameter", "content"),
        ("/tokenize", {"content": 7}, 400, "invalid_type", "content"),
        ("/tokenize", {"content": "x" * 262_145}, 400, "invalid_value", "content"),
        ("/tokenize", {"content": "x", "model": "gpt"}, 404, "model_not_found", None),
        ("/detokenize", {}, 400, "missing_required_parameter", "tokens"),
        ("/detokenize", {"tokens": "x"}, 400, "invalid_type", "tokens"),
        ("/detokenize", {"tokens": [1.5]}, 400, "invalid_type", "tokens[0]"),
        ("/detokenize", {"tokens": [1, -1]}, 400, "integer_below_min_value", "tokens[1]"),
        ("/detokenize", {"tokens": [10**30]}, 400, None, "tokens[0]"),
        ("/detokenize", {"tokens": [1] * 262_145}, 400, "array_above_max_length", "tokens"),
        ("/apply-template", {}, 400, "missing_required_parameter", "messages"),
        ("/apply-template", {"messages": []}, 400, "empty_array", "messages"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_is_refused(
    serve: Serve, path: str, body: Any, status: int, code: str | None, param: str | None
) -> None:
    found, error = await _post(serve, path, **body)
    assert (found, error["param"]) == (status, param)
    assert error["message"] and (code is None or error["code"] == code)


async def test_models_of_every_kind_have_tokens(serve: Serve) -> None:
    embedder = FakeEngine(name="embed", info=model_info(kind="embed", chat_template=None))
    ranker = FakeEngine(name="rank", info=model_info(kind="rerank", chat_template=None))
    async with serve(embedder, ranker, FakeEngine()) as client:
        for model in ("embed", "rank", None):
            said = await client.post("/tokenize", json={"content": "Hi", "model": model})
            assert said.json() == {"tokens": [72, 105]}, model
            said = await client.post("/detokenize", json={"tokens": [72, 105], "model": model})
            assert said.json() == {"content": "Hi"}, model
    assert await _post(serve, "/tokenize", embedder, content="Hi") == {"tokens": [72, 105]}
    async with serve(embedder, ranker) as client:
        error = (await client.post("/tokenize", json={"content": "Hi"})).json()["error"]
    assert (error["code"], error["param"]) == ("missing_required_parameter", "model")


async def test_a_template_that_refuses_and_a_model_that_loads(serve: Serve) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    refusing = FakeEngine(info=model_info(chat_template="{{ raise_exception('no') }}"))
    status, error = await _post(serve, "/apply-template", refusing, messages=messages)
    assert (status, error["code"]) == (400, "invalid_messages")

    class Loading(FakeEngine):
        async def tokenize(self, *_: Any, **__: Any) -> Any:
            raise ModelLoading("not yet")

    status, error = await _post(serve, "/tokenize", Loading(), content="Hi")
    assert (status, error["code"]) == (503, "model_loading")
