"""Streams that are silent for long, and clients that leave them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import pytest

from server.api import sse
from server.api.sse import EventStream

pytestmark = pytest.mark.anyio

IDLE = b"data: {}\n\n"
PING = b": ping\n\n"


async def _never() -> MutableMapping[str, Any]:
    return await asyncio.Event().wait()  # type: ignore[return-value]


async def test_silence_is_comments_and_then_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two comments, then what resets the timers of clients that count chunks; and again."""
    monkeypatch.setattr(sse, "_PING_SECONDS", 0.01)
    sent: list[bytes] = []
    enough, again = asyncio.Event(), asyncio.Event()

    async def frames() -> AsyncGenerator[bytes]:
        yield b"first"
        await enough.wait()
        yield b"second"
        await again.wait()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message.get("body"):
            sent.append(message["body"])
        if sent[-2:] == [IDLE, PING]:
            enough.set()
        if sent.count(IDLE) == 2:
            again.set()

    async with asyncio.timeout(10):
        await EventStream(frames(), lambda: IDLE)({}, _never, send)
    before, after = sent[1 : sent.index(b"second")], sent[sent.index(b"second") + 1 :]
    assert before[:4] == [PING, PING, IDLE, PING]
    assert after[:3] == [PING, PING, IDLE], "the frame did not count as a sign of life"


async def test_an_answer_that_is_over_gets_comments_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_PING_SECONDS", 0.01)
    sent: list[bytes] = []
    enough = asyncio.Event()

    async def frames() -> AsyncGenerator[bytes]:
        yield b"last"
        await enough.wait()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message.get("body"):
            sent.append(message["body"])
        if len(sent) > 7:
            enough.set()

    async with asyncio.timeout(10):
        await EventStream(frames(), lambda: b"")({}, _never, send)
    assert set(sent[1:]) == {PING}


def test_a_chunk_comes_within_the_minute_that_clients_wait() -> None:
    assert sse._PING_SECONDS <= 15
    assert sse._PING_SECONDS * sse._PINGS_TO_IDLE < 60


async def test_who_leaves_ends_the_frames() -> None:
    ended = asyncio.Event()

    async def frames() -> AsyncGenerator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        del message

    async with asyncio.timeout(10):
        await EventStream(frames(), lambda: IDLE)({}, receive, send)
        await ended.wait()


async def test_who_reads_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_STALLED_SECONDS", 0.05)
    ended = asyncio.Event()
    asked = 0

    async def frames() -> AsyncGenerator[bytes]:
        nonlocal asked
        try:
            while True:
                asked += 1
                yield b"x"
        finally:
            ended.set()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message.get("body") and asked == 3:
            await asyncio.Event().wait()

    async with asyncio.timeout(10):
        await EventStream(frames(), IDLE)({}, _never, send)
        await ended.wait()
    assert asked == 3
