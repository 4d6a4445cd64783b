"""What is wrong whatever the model is said before the model is, and alike on every route."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes import FakeEngine

from .conftest import Serve

pytestmark = pytest.mark.anyio

ASKS = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/apply-template": {"messages": [{"role": "user", "content": "Hi"}]},
}
CHAT, COMPLETIONS, TEMPLATE = ASKS


async def _error(serve: Serve, path: str, **body: Any) -> tuple[int, str | None, str | None]:
    engine = FakeEngine()
    async with serve(engine) as client:
        response = await client.post(path, json=ASKS[path] | body)
    assert engine.requests == ()
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        (CHAT, {"tool_choice": "bogus"}, "invalid_value", "tool_choice"),
        (TEMPLATE, {"tool_choice": "bogus"}, "invalid_value", "tool_choice"),
        (CHAT, {"top_logprobs": 3}, "invalid_value", "top_logprobs"),
        (CHAT, {"n": 17}, "integer_above_max_value", "n"),
        (CHAT, {"logit_bias": {"x": 1}}, "invalid_value", "logit_bias"),
        (CHAT, {"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
        (COMPLETIONS, {"n": 17}, "integer_above_max_value", "n"),
        (COMPLETIONS, {"best_of": 1, "n": 2}, "invalid_value", "best_of"),
        (COMPLETIONS, {"logit_bias": {"x": 1}}, "invalid_value", "logit_bias"),
        (
            COMPLETIONS,
            {"response_format": {"type": "xml"}},
            "invalid_value",
            "response_format.type",
        ),
    ],
    ids=str,
)
async def test_fields_are_checked_before_the_model(
    serve: Serve, path: str, body: dict[str, Any], code: str, param: str
) -> None:
    assert await _error(serve, path, **body, model="nope") == (400, code, param)
    assert await _error(serve, path, model="nope") == (404, "model_not_found", None)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_more_tokens_cannot_be_asked_for_than_allowed(serve: Serve, path: str) -> None:
    found = await _error(serve, path, min_tokens=9, max_tokens=8)
    assert found == (400, "invalid_value", "min_tokens")
    async with serve() as client:
        right = await client.post(path, json=ASKS[path] | {"min_tokens": 8, "max_tokens": 8})
    assert right.status_code == 200


async def test_the_limit_that_nobody_set_counts_too(serve: Serve) -> None:
    assert (await _error(serve, COMPLETIONS, min_tokens=17))[2] == "min_tokens"


@pytest.mark.parametrize(
    ("field", "value", "harmless"),
    [
        ("use_beam_search", True, False),
        ("allowed_token_ids", [1], []),
        ("prompt_logprobs", 1, None),
        ("truncate_prompt_tokens", 5, None),
        ("best_of", 3, 1),
        ("messages", [{"role": "user", "content": "Hi"}], []),
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_what_is_not_served_is_refused_everywhere(
    serve: Serve, path: str, field: str, value: Any, harmless: Any
) -> None:
    async with serve() as client:
        asked = await client.post(path, json=ASKS[path] | {field: value})
        left = await client.post(path, json=ASKS[path] | {field: harmless})
    honoured = (path, field) in ((COMPLETIONS, "best_of"), (CHAT, "messages"))
    if not honoured:
        error = asked.json()["error"]
        assert (error["code"], error["param"]) == ("unsupported_parameter", field)
    assert asked.status_code == (200 if honoured else 400)
    assert left.status_code == (400 if (path, field) == (CHAT, "messages") else 200)
    assert "x-ignored-params" not in left.headers
