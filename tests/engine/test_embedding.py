"""The echo embedder in an engine process of its own: the whole loop, without a model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import numpy as np
import pytest

from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.core.errors import (
    ContextOverflow,
    EngineError,
    InvalidRequest,
    ModelFileError,
)
from server.core.types import (
    Admitted,
    Embedded,
    EmbedRequest,
    EngineEvent,
    Finished,
    GenerateRequest,
    TextPiece,
    Usage,
)
from server.engine.embedding import FEWEST_TOKENS, Pace
from server.engine.process import EngineProcess
from tests.fakes import Recorder

pytestmark = pytest.mark.anyio

DEADLINE = 10.0
EMBEDDER = "server.engine.echo_embedder:EchoEmbedder"
SLOW = "echo:embed,tokens=2000"
"""2 000 tokens a second."""


@contextlib.asynccontextmanager
async def _started(
    path: str, stats: Recorder | None = None, runner: str = EMBEDDER
) -> AsyncIterator[EngineProcess]:
    config = EngineConfig(runner, RunnerConfig(path, context=256, slots=8), SchedulerConfig())
    engine = EngineProcess("embed", config, stats or Recorder())
    async with asyncio.timeout(DEADLINE):
        await engine.start()
    try:
        yield engine
    finally:
        async with asyncio.timeout(DEADLINE):
            await engine.stop()


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[EngineProcess]:
    async with _started("echo:embed") as engine:
        yield engine


async def _events(engine: EngineProcess, request: EmbedRequest) -> list[EngineEvent]:
    async with asyncio.timeout(DEADLINE):
        return [event async for batch in engine.embed(request) for event in batch]


def _vectors(events: Iterable[EngineEvent]) -> np.ndarray:
    parts = [event for event in events if isinstance(event, Embedded)]
    count = sum(part.count for part in parts)
    return np.frombuffer(b"".join(part.data for part in parts), "<f4").reshape(count, -1)


async def _embed(engine: EngineProcess, *texts: str, **more: object) -> np.ndarray:
    return _vectors(await _events(engine, EmbedRequest("e", texts, **more)))


async def test_vectors_come_in_order_with_length_one(shared: EngineProcess) -> None:
    texts = [f"text number {i} " * (1 + i % 5) for i in range(40)]
    events = await _events(shared, EmbedRequest("e", tuple(texts)))
    tokens = sum(map(len, texts))
    assert events[0] == Admitted("e", tokens)
    assert isinstance(events[-1], Finished)
    assert events[-1].usage == Usage(tokens, 0, 0)
    found = _vectors(events)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    for index in (0, 17, 39):
        assert np.array_equal(found[index], (await _embed(shared, texts[index]))[0])


async def test_token_ids_are_taken_as_they_are(shared: EngineProcess) -> None:
    ids = (tuple(b"hello"), tuple(b"world"))
    events = await _events(shared, EmbedRequest("e", tokens=ids))
    assert np.array_equal(_vectors(events), await _embed(shared, "hello", "world"))


async def test_dimensions_cut_and_normalise_again(shared: EngineProcess) -> None:
    whole = (await _embed(shared, "some longer text"))[0]
    cut = (await _embed(shared, "some longer text", dimensions=16))[0]
    assert cut.shape == (16,)
    assert np.allclose(cut, whole[:16] / np.linalg.norm(whole[:16]), atol=1e-6)


@pytest.mark.parametrize("length", [257, 100_000])
async def test_what_is_too_long_is_named_and_nothing_is_cut(
    shared: EngineProcess, length: int
) -> None:
    with pytest.raises(ContextOverflow, match=r"256 tokens.*input\[2\]") as caught:
        await _embed(shared, "a", "b" * 256, "c" * length)
    assert caught.value.param == "input[2]"
    with pytest.raises(ContextOverflow) as caught:
        await _embed(shared, "c" * length, alone=True)
    assert caught.value.param == "input"


async def test_a_short_request_passes_a_long_list() -> None:
    async with _started(SLOW) as engine:
        long = asyncio.ensure_future(
            _events(engine, EmbedRequest("long", ("x" * 100,) * 2048))
        )  # 100 s of work
        while len(engine._ongoing) < 1:
            await asyncio.sleep(0)
        assert (await _embed(engine, "short")).shape == (1, 64)
        assert not long.done()
        long.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await long


async def test_a_request_left_early_is_computed_no_further() -> None:
    stats = Recorder()
    async with _started(SLOW, stats) as engine:
        stream = engine.embed(EmbedRequest("gone", ("x" * 100,) * 2048))
        async with asyncio.timeout(DEADLINE):
            async for events in stream:
                if any(isinstance(event, Embedded) for event in events):
                    break
            await stream.aclose()
            await _embed(engine, "next")
            while stats.steps[-1].running or stats.steps[-1].waiting:
                await asyncio.sleep(0.01)
        assert sum(step.prefill_tokens for step in stats.steps) < 10_000


async def test_many_inputs_share_a_batch() -> None:
    stats = Recorder()
    async with _started("echo:embed", stats) as engine:
        await _embed(engine, *["ten tokens"] * 64)
    sizes = [step.batch_size for step in stats.steps if step.batch_size]
    assert sum(sizes) == 64
    assert max(sizes) == 8, "as many as there are slots"


async def test_documents_are_scored_with_the_query() -> None:
    async with _started("echo:rerank") as engine:
        documents = ("no match", "red apples", "red and green apples")
        scores = await _embed(engine, *documents, query="red green apples", field="documents")
        assert scores[:, 0] == pytest.approx([0, 2 / 3, 1])
        with pytest.raises(ContextOverflow) as caught:
            await _embed(engine, "a", "b" * 250, query="red apples", field="documents")
        assert caught.value.param == "documents[1]"


async def test_its_tokens_can_be_asked_for(shared: EngineProcess) -> None:
    async with asyncio.timeout(DEADLINE):
        there = await shared.tokenize((TextPiece("ab é"),), begin=True)
        assert (there.tokens, there.text) == (tuple("ab é".encode()), "ab é")
        assert (await shared.detokenize((97, 256))).text == "a<|separator|>"
        with pytest.raises(InvalidRequest, match="257") as refusal:
            await shared.detokenize((97, 257))
    assert refusal.value.param == "tokens[1]"


async def test_a_kind_of_request_the_model_is_not_made_for(shared: EngineProcess) -> None:
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(InvalidRequest, match="embed"):
            await anext(shared.generate(GenerateRequest("g", (TextPiece("hi"),))))
        async with _started("echo:", runner="server.engine.echo:EchoRunner") as engine:
            with pytest.raises(InvalidRequest, match="generate"):
                await anext(engine.embed(EmbedRequest("e", ("hi",))))


async def test_an_input_that_cannot_be_computed_fails_its_request_alone() -> None:
    async with _started("echo:embed", runner="tests.fakes:FailingEmbedder") as engine:
        good, bad = await asyncio.gather(
            _events(engine, EmbedRequest("good", ("fine",) * 20)),
            _events(engine, EmbedRequest("bad", (*("fine",) * 9, "not!", "fine"))),
            return_exceptions=True,
        )
        assert isinstance(bad, EngineError)
        assert not isinstance(good, BaseException)
        assert len(_vectors(good)) == 20
        assert len(await _embed(engine, "again")) == 1


async def test_a_path_that_is_no_echo_is_refused() -> None:
    with pytest.raises(ModelFileError, match="echo:embed"):
        async with _started("echo:rate=50"):
            pass


def test_batches_shrink_to_the_step_that_is_asked_for() -> None:
    pace = Pace(SchedulerConfig(target_step_ms=200, max_step_tokens=512))
    assert pace.tokens == 512
    for _ in range(30):
        pace.learn(pace.tokens, pace.tokens / 1000)
    assert pace.tokens == pytest.approx(200, abs=5)
    for _ in range(30):
        pace.learn(pace.tokens, pace.tokens / 10)
    assert pace.tokens == FEWEST_TOKENS
    for _ in range(30):
        pace.learn(pace.tokens, pace.tokens / 1_000_000)
    assert pace.tokens == 512
