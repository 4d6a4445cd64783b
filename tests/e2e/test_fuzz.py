"""What a hostile client sends, two thousand times: each is answered, or refused with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.schemas import APIOperation

from tests.api.conftest import make_app

from . import strategies
from .conftest import _serving
from .referee import Referee

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

MODELS = ("echo=echo:", "embed=echo:embed", "rank=echo:rerank")
POSTS = [
    operation
    for found in schemathesis.openapi.from_dict(make_app()[0].openapi()).get_all_operations()
    if (operation := found.ok()).method == "post"
]
EXAMPLES = {GenerationMode.POSITIVE: 60, GenerationMode.NEGATIVE: 50}
"""Of each route; 770 in all, and 1 280 that are not from the document."""
FEW_FIELDS = 4
"""A request with every field of the document is right by chance only; one with few often is."""
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Referee]:
    with _serving() as start:
        referee = Referee(start(*MODELS, accept_any_model=True, ctx=1024))
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
        max_examples=count,
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


def test_bytes_that_were_a_request(referee: Referee) -> None:
    @examples(80)
    @given(strategies.damaged())
    def sent(body: bytes) -> None:
        referee.post(CHAT, body)

    sent()
    assert referee.sent >= 80 and referee.refused >= referee.sent / 4
