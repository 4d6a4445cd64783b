"""The model routes, and the names a model may be asked for by."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from openai.types import Model

from server.core.errors import ConfigError
from tests.fakes import FakeEngine, model_info

from .conftest import Serve, make_app

pytestmark = pytest.mark.anyio

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_the_list_is_what_the_sdk_expects(serve: Serve, prefix: str) -> None:
    loading = FakeEngine(name="loading")
    loading.loaded = None
    async with serve(FakeEngine(name="org/model:q4"), loading) as client:
        listed = (await client.get(f"{prefix}/models?api-version=1&x")).json()
        again = (await client.get(f"{prefix}/models")).json()
    assert listed == again
    assert set(listed) == {"object", "data"} and listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["org/model:q4", "loading"]
    for model in listed["data"]:
        assert Model.model_validate(model, strict=True).object == "model"
        assert None not in model.values()
    assert listed["data"][0]["context_length"] == 1024


@pytest.mark.parametrize(
    "path", ["/models/org/model", "/v1/models/org/model", "/v1/models/org%2Fmodel"]
)
async def test_a_name_may_hold_slashes(serve: Serve, path: str) -> None:
    async with serve(FakeEngine(name="org/model")) as client:
        assert (await client.get(path)).json()["id"] == "org/model"


async def test_an_unknown_model_is_404_with_those_there_are(serve: Serve) -> None:
    async with serve() as client:
        response = await client.get("/v1/models/gpt-4")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


async def test_anthropics_clients_get_what_they_read_beside_the_rest(serve: Serve) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    async with serve(FakeEngine(name="a"), FakeEngine(name="b")) as client:
        plain = (await client.get("/v1/models")).json()
        listed = (await client.get("/v1/models", headers=headers)).json()
        one = (await client.get("/v1/models/a", headers=headers)).json()
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, "a", "b")
    assert listed["data"][0] == one
    assert (one["type"], one["display_name"]) == ("model", "a")
    assert datetime.fromisoformat(one["created_at"]).timestamp() == one["created"]
    for more, less in zip(listed["data"], plain["data"], strict=True):
        assert more.items() > less.items()


async def test_capabilities_are_what_the_model_can(serve: Serve) -> None:
    base = FakeEngine(name="base", info=model_info(chat_template=None))
    coder = FakeEngine(name="coder", info=model_info(fill_in_middle=("<p>", "<s>", "<m>")))
    async with serve(base, coder) as client:
        listed = (await client.get("/v1/models")).json()["data"]
    found = {model["id"]: set(model["capabilities"]) for model in listed}
    assert found["base"] == {"completion"}
    assert found["coder"] == {"completion", "chat", "insert"}


async def test_an_alias_is_served_listed_and_answered_as_the_model(serve: Serve) -> None:
    one, two = FakeEngine(name="one"), FakeEngine(name="two")
    async with serve(one, two, aliases={"gpt-4o": "two"}) as client:
        answer = await client.post("/v1/chat/completions", json=BODY | {"model": "gpt-4o"})
        listed = (await client.get("/v1/models")).json()["data"]
        alias = (await client.get("/v1/models/gpt-4o")).json()
        unknown = await client.post("/v1/chat/completions", json=BODY | {"model": "gpt-4"})
    assert answer.json()["model"] == "two"
    assert two.requests and not one.requests
    assert [(model["id"], model["root"]) for model in listed] == [
        ("one", "one"),
        ("two", "two"),
        ("gpt-4o", "two"),
    ]
    assert listed[1]["meta"]["aliases"] == ["gpt-4o"]
    assert alias == listed[2]
    assert unknown.status_code == 404


async def test_any_model_gets_the_first_one_where_the_operator_says_so(serve: Serve) -> None:
    one, two = FakeEngine(name="one"), FakeEngine(name="two")
    async with serve(one, two, accept_any_model=True, aliases={"b": "two"}) as client:
        for asked, served in [("gpt-4", "one"), ("two", "two"), ("b", "two")]:
            answer = await client.post("/v1/chat/completions", json=BODY | {"model": asked})
            assert answer.json()["model"] == served
        assert (await client.get("/v1/models/gpt-4")).json()["id"] == "one"


async def test_any_model_is_one_that_does_what_is_asked(serve: Serve) -> None:
    vectors = FakeEngine(name="vectors", info=model_info(kind="embed", embedding_size=2))
    ranks = FakeEngine(name="ranks", info=model_info(kind="rerank"))
    async with serve(vectors, ranks, FakeEngine(), accept_any_model=True) as client:
        for path, body, served in [
            ("chat/completions", BODY, "fake"),
            ("completions", {"prompt": "Hi"}, "fake"),
            ("embeddings", {"input": "Hi"}, "vectors"),
            ("rerank", {"query": "Hi", "documents": ["Hi"]}, "ranks"),
        ]:
            answer = await client.post(f"/v1/{path}", json=body | {"model": "gpt-4"})
            assert (answer.status_code, answer.json().get("model")) == (200, served)


@pytest.mark.parametrize("asked", [{"model": "gpt-4"}, {}], ids=str)
async def test_what_may_turn_out_to_do_it_is_waited_for(
    serve: Serve, asked: dict[str, str]
) -> None:
    vectors = FakeEngine(name="vectors", info=model_info(kind="embed", embedding_size=2))
    loading = FakeEngine(name="loading")
    loading.loaded = None
    async with serve(vectors, loading, accept_any_model=True) as client:
        answer = await client.post("/v1/chat/completions", json=BODY | asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_loading")


@pytest.mark.parametrize(
    ("aliases", "said"),
    [
        ({"a": "nothing"}, "means nothing, which is not served"),
        ({"fake": "fake"}, "choose another"),
    ],
)
def test_an_alias_that_cannot_be_meant_stops_the_start(aliases: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_app(aliases=aliases)
