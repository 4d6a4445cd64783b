"""What a hostile client sends, some thousand times: each is answered, or refused with a reason.

FUZZ_TIMES=5 sends five times as many.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.schemas import APIOperation

from server.api.openapi import body_schema
from server.api.routes import openai_routes
from server.schemas.common import RequestBody
from tests.api.conftest import make_app

from . import strategies
from .conftest import _serving
from .referee import Referee

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240 * TIMES)]

MODELS = ("echo=echo:", "embed=echo:embed", "rank=echo:rerank")
POSTS = [
    operation
    for found in schemathesis.openapi.from_dict(make_app()[0].openapi()).get_all_operations()
    if (operation := found.ok()).method == "post" and not operation.path.startswith("/admin/")
]
"""Those of clients: the operator's fetch models from the network, and are closed to web pages."""
EXAMPLES = {GenerationMode.POSITIVE: 60, GenerationMode.NEGATIVE: 50}
"""Of each route; 770 in all, and 3 500 that are not from the document."""
FEW_FIELDS = 4
"""A request with every field of the document is right by chance only; one with few often is."""
CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "Hi"}]
RIGHT: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HI, "max_tokens": 4},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 4},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/rerank": {"query": "Hi", "documents": ["Hi"]},
    "/v1/tokenize": {"content": "Hi"},
    "/v1/detokenize": {"tokens": [65]},
    "/v1/apply-template": {"messages": HI},
}
MISSING = object()
EDGES: list[Any] = [
    MISSING,
    None,
    True,
    "",
    [],
    {},
    0,
    -1,
    2**63,
    10**400,
    -(10**400),
    0.5,
    1e308,
    float("nan"),
    float("inf"),
    "x" * 100_000,
    "\ud800",
    ["x" * 1000] * 3000,
    [None],
    [[[]]],
    {"": {"": None}},
    {"type": "x" * 1000},
]


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Referee]:
    with _serving() as start:
        pinned = json.dumps({knobs.partition("=")[0]: {"pin": True} for knobs in MODELS})
        referee = Referee(start(*MODELS, accept_any_model=True, ctx=1024, model=pinned))
        yield referee
        referee.close()


@pytest.fixture
def referee(fuzzed: Referee) -> Iterator[Referee]:
    """Whatever the test sent, the server is as it was."""
    fuzzed.forget()
    yield fuzzed
    fuzzed.check_unbroken()


def examples(count: int) -> hypothesis.settings:
    """The same ones every time; the first that fails is printed as it is."""
    return hypothesis.settings(
        max_examples=count * TIMES,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def _documented(draw: st.DrawFn, operation: APIOperation, mode: GenerationMode) -> Any:
    body = draw(operation.as_strategy(generation_mode=mode)).body
    if mode is GenerationMode.NEGATIVE or not isinstance(body, dict):
        return body if isinstance(body, dict | list | str | int | float) else b""
    order = draw(st.permutations(sorted(body)))
    schema = operation.body[0].definition["schema"]
    kept = {*schema.get("required", ()), *order[: draw(st.integers(0, FEW_FIELDS))]}
    body = {name: _whole(value) for name, value in body.items() if name in kept}
    if operation.path == "/v1/completions" and not body.get("prompt"):
        return body | {"prompt": "Hi"}  # an echo has no token for the beginning of a text
    return body


def _whole(value: Any) -> Any:
    """To JSON Schema 1.0 is an integer; to this server, as to OpenAI, it is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_whole(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("mode", EXAMPLES, ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize("operation", POSTS, ids=lambda operation: operation.path)
def test_what_the_document_says_and_its_opposite(
    referee: Referee, operation: APIOperation, mode: GenerationMode
) -> None:
    @examples(EXAMPLES[mode])
    @given(_documented(operation, mode))
    def sent(body: Any) -> None:
        referee.post(operation.path, body)

    sent()
    assert referee.sent >= EXAMPLES[mode]
    if mode is GenerationMode.POSITIVE:
        assert referee.answered >= referee.sent / 20, "what the document says is refused"


@pytest.mark.parametrize(
    ("path", "bodies", "count", "streams"),
    [
        (CHAT, strategies.chats, 650, 130),
        ("/v1/completions", strategies.completions, 350, 90),
        ("/v1/embeddings", strategies.embeddings, 120, 0),
        ("/v1/rerank", strategies.rerankings, 80, 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fields_that_are_mostly_right(
    referee: Referee, path: str, bodies: st.SearchStrategy[Any], count: int, streams: int
) -> None:
    @examples(count)
    @given(bodies)
    def sent(body: Any) -> None:
        referee.post(path, body)

    sent()
    assert referee.sent >= count and referee.streams >= streams
    assert referee.answered >= referee.sent / 3 and referee.refused >= referee.sent / 25


def _schemas() -> dict[str, type[RequestBody]]:
    routes = iter_route_contexts(openai_routes().routes)
    found = {route.path_format: body_schema(route) for route in routes}
    return {f"/v1{path}": schema for path, schema in found.items() if schema is not None}


@pytest.mark.parametrize("path", sorted(RIGHT))
def test_every_field_at_its_edges(referee: Referee, path: str) -> None:
    """Whatever is wrong with it, the error names the field or another that it needs."""
    schema = _schemas()[path]
    names = [field.alias or name for name, field in schema.model_fields.items()]
    unclear = []
    for name in [*names, *schema.ignored, *schema.refused]:
        for value in EDGES:
            body = {key: right for key, right in RIGHT[path].items() if key != name}
            body |= {} if value is MISSING else {name: value}
            error = referee.post(path, body)
            if error and not is_clear(error, name, value):
                unclear.append((name, repr(value)[:40], error))
    assert not unclear


def is_clear(error: dict[str, Any], name: str, value: Any) -> bool:
    if len(error["message"]) > 1000:
        return False
    if error["param"] is None:
        return _is_no_json(value) or error["code"] == "model_not_found"
    overflow = error["code"] == "context_length_exceeded"
    return error["param"].startswith(name) or name in error["message"] or overflow


def test_every_field_is_asked_for() -> None:
    assert sorted(RIGHT) == sorted(operation.path for operation in POSTS)


def _is_no_json(value: Any) -> bool:
    return value != value or value in (float("inf"), "\ud800")


def test_bytes_that_were_a_request(referee: Referee) -> None:
    @examples(80)
    @given(strategies.damaged())
    def sent(body: bytes) -> None:
        referee.post(CHAT, body)

    sent()
    assert referee.sent >= 80 and referee.refused >= referee.sent / 4
