"""One request's vectors from an engine, and what is remembered of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.core.errors import ContextOverflow, EngineError
from server.core.types import Admitted, Embedded, EmbedRequest
from server.services.vectors import Vectors
from tests.fakes import FakeEngine, Recorder, VectorScript, vectors

pytestmark = pytest.mark.anyio

REQUEST = EmbedRequest("e", ("a", "b", "c"))


async def _run(script: VectorScript, stats: Recorder, seconds: float = 5) -> list[bytes]:
    engine = FakeEngine()
    engine.vectors = script
    async with Vectors(engine, REQUEST, stats) as run, asyncio.timeout(seconds):
        return await run.collect()


async def test_vectors_in_order_and_one_record() -> None:
    stats = Recorder()
    found = await _run(vectors((1.0,), (2.0,), (3.0,), tokens=12), stats)
    assert found == [b"\x00\x00\x80?", b"\x00\x00\x00@", b"\x00\x00@@"]
    (record,) = stats.requests
    assert (record.outcome, record.prompt_tokens, record.queue_seconds) == ("stop", 12, 0.25)
    assert (record.completion_tokens, record.first_token_seconds) == (0, None)


async def test_what_is_refused_is_no_request() -> None:
    stats = Recorder()
    with pytest.raises(ContextOverflow):
        await _run(lambda _: [ContextOverflow.of(9, 5)], stats)
    assert stats.requests == []


@pytest.mark.parametrize(
    ("last", "error", "outcome"),
    [(EngineError("gone"), EngineError, "error"), (asyncio.Event(), TimeoutError, "cancelled")],
    ids=["the engine dies", "the client leaves"],
)
async def test_what_ends_early_is_recorded_so(
    last: Any, error: type[Exception], outcome: str
) -> None:
    stats = Recorder()
    script: VectorScript = lambda r: [  # noqa: E731
        [Admitted(r.id, 3)],
        [Embedded(r.id, 1, b"\0\0\0\0")],
        last,
    ]
    engine = FakeEngine()
    engine.vectors = script
    async with Vectors(engine, REQUEST, stats) as run:
        with pytest.raises(error):
            async with asyncio.timeout(0.05):
                await run.collect()
    assert [record.outcome for record in stats.requests] == [outcome]
    assert engine.closed.is_set()
