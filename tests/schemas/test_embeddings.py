"""The four shapes of input, and what goes back on the wire."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from server.core.errors import InvalidRequest
from server.schemas.embeddings import EmbeddingsRequest, Inputs, embeddings_body
from server.schemas.rerank import RerankRequest, rerank_body


def _inputs(value: Any) -> Inputs:
    return EmbeddingsRequest.model_validate_json(json.dumps({"input": value, "model": "m"})).input


@pytest.mark.parametrize(
    ("value", "inputs"),
    [
        ("text", Inputs(("text",), alone=True)),
        (["a", "b"], Inputs(("a", "b"))),
        ([1, 2], Inputs(tokens=((1, 2),), alone=True)),
        ([[1, 2], [3]], Inputs(tokens=((1, 2), (3,)))),
        (["x"] * 2048, Inputs(("x",) * 2048)),
        ([1] * 3000, Inputs(tokens=((1,) * 3000,), alone=True)),
    ],
    ids=["text", "texts", "ids", "lists of ids", "2048 texts", "a long text in ids"],
)
def test_every_shape_is_read(value: Any, inputs: Inputs) -> None:
    assert _inputs(value) == inputs


@pytest.mark.parametrize(
    ("value", "param", "code"),
    [
        (None, "input", "invalid_type"),
        (7, "input", "invalid_type"),
        ({"text": "a"}, "input", "invalid_type"),
        ("", "input", "invalid_value"),
        ([], "input", "empty_array"),
        (["a", ""], "input[1]", "invalid_value"),
        (["a", 3], "input[1]", "invalid_type"),
        (["a", None], "input[1]", "invalid_type"),
        ([1, "a"], "input[1]", "invalid_type"),
        ([1, True], "input[1]", "invalid_type"),
        ([1, 2.5], "input[1]", "invalid_type"),
        ([[1], []], "input[1]", "empty_array"),
        ([[1], [2, "x"]], "input[1][1]", "invalid_type"),
        ([[1], "x"], "input[1]", "invalid_type"),
        (["x"] * 2049, "input", "array_above_max_length"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(value: Any, param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _inputs(value)
    assert (caught.value.param, caught.value.error_code) == (param, code)


@pytest.mark.parametrize("wrong", [-1, 300, 2**70])
def test_ids_of_another_tokenizer_name_the_remedy(wrong: int) -> None:
    _inputs([[0, 299]]).check_tokens(300)
    with pytest.raises(InvalidRequest, match="check_embedding_ctx_length=False") as caught:
        _inputs([[5], [7, wrong, 8]]).check_tokens(300)
    assert caught.value.param == "input[1]"
    with pytest.raises(InvalidRequest) as caught:
        _inputs([wrong]).check_tokens(300)
    assert caught.value.param == "input"


def test_base64_is_the_bytes_and_floats_are_the_same_numbers() -> None:
    numbers = (0.1, -2.5e-8, 1 / 3)
    vectors = [struct.pack("<3f", *numbers), struct.pack("<3f", 1, 0, 0)]
    packed = json.loads(embeddings_body("m", vectors, 9, "base64"))
    plain = json.loads(embeddings_body("m", vectors, 9, "float"))
    assert [item["index"] for item in packed["data"]] == [0, 1]
    for item, other, vector in zip(packed["data"], plain["data"], vectors, strict=True):
        assert base64.b64decode(item["embedding"], validate=True) == vector
        assert struct.pack("<3f", *other["embedding"]) == vector
    assert plain["usage"] == packed["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert (plain["object"], plain["model"]) == ("list", "m")


def _rerank(**fields: Any) -> RerankRequest:
    documents = ["a", {"text": "b", "id": 5}, "c"]
    return RerankRequest.model_validate({"query": "q", "documents": documents, **fields})


def test_documents_go_back_best_first() -> None:
    scores = struct.pack("<3f", 0.25, 0.75, 0.25)
    body = rerank_body("m", _rerank(return_documents=True), scores, 12)
    assert body["results"] == [
        {"index": 1, "relevance_score": 0.75, "document": {"text": "b"}},
        {"index": 0, "relevance_score": 0.25, "document": {"text": "a"}},
        {"index": 2, "relevance_score": 0.25, "document": {"text": "c"}},
    ]
    best = rerank_body("m", _rerank(top_n=1), scores, 12)
    assert best["results"] == [{"index": 1, "relevance_score": 0.75}]
    assert best["usage"] == {"prompt_tokens": 12, "total_tokens": 12}
    assert len(rerank_body("m", _rerank(top_n=99), scores, 12)["results"]) == 3
