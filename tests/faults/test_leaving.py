"""A client that leaves, whenever and however, frees what it had and touches nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import statistics
import time
from collections.abc import AsyncIterator

import pytest

from tests.e2e.conftest import Server, Start

from .leaving import CLOSE, HALF_CLOSE, RESET, Client
from .ledger import LEFT, Ledger, soon

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

WAYS = (RESET, CLOSE, HALF_CLOSE)
STEP = 0.025
SOON = 0.15
"""Seconds beside the step under way until nobody computes for it any more."""
LATE = 1.0
SLOTS = 4
KNOBS = "echo=echo:rate=40,prefill=4000,load=0.6"


@contextlib.asynccontextmanager
async def neighbour(ledger: Ledger, server: Server) -> AsyncIterator[None]:
    """Is there all the time, and hears what it should."""
    async with server.async_client() as client:
        text = f"neighbour {ledger.canary(22)}"
        asked = asyncio.create_task(ledger.ask(client, said=text, max_tokens=160))
        await soon(lambda: server.metric("ingle_requests_running") == 1)
        yield
        assert not asked.done()
        assert (await asked).outcome == "length"


def posted(ledger: Ledger, server: Server, words: int, n: int, **more: object) -> Client:
    """One whose client leaves: what it hears is not read."""
    said = ledger.canary(words)
    entry = ledger.open(said, choices=n)
    entry.ends = [LEFT]
    entry.accepted = True
    return Client(server, said, n=n, **more)


def state(server: Server) -> tuple[float, float]:
    return server.metric("ingle_slots_busy"), server.metric("ingle_requests_waiting")


async def freed(server: Server, client: Client, how: str) -> float:
    """Seconds from leaving until only the neighbour is there."""
    before = server.outcomes().get("cancelled", 0)
    left_at = time.monotonic()
    client.leave(how)
    await soon(lambda: state(server) == (1, 0), 5)
    took = time.monotonic() - left_at
    await soon(lambda: server.outcomes().get("cancelled") == before + 1, 1)
    client.close()
    return took


def check(took: list[float], step: float) -> None:
    """The machine may be busy once; the bound is for what is usual."""
    assert statistics.median(took) < step + SOON, took
    assert max(took) < step + LATE, took


async def test_while_it_is_decoded(start: Start) -> None:
    server = start(KNOBS, slots=SLOTS)
    ledger = Ledger(server, random.Random(31))
    took = []
    async with neighbour(ledger, server):
        for how, stream in itertools.product(WAYS, (True, False)):
            client = posted(ledger, server, 80, 3, stream=stream)
            await soon(lambda: state(server) == (4, 0))
            if stream:
                await asyncio.to_thread(client.hear, b'"content":')
            took.append(await freed(server, client, how))
    check(took, STEP)
    ledger.check()


async def test_while_its_prompt_is_read(start: Start) -> None:
    """A piece of a prompt takes 200 ms at most beside the neighbour's stream."""
    server = start(KNOBS, slots=SLOTS, ctx=16384)
    ledger = Ledger(server, random.Random(32))
    took = []
    async with neighbour(ledger, server):
        for how in WAYS:
            client = posted(ledger, server, 1500, 2)
            await soon(lambda: state(server)[0] == 2)
            took.append(await freed(server, client, how))
    check(took, 0.25)
    assert server.metric("ingle_generated_tokens_total") < 200
    ledger.check()


async def test_while_it_waits(start: Start) -> None:
    server = start("echo=echo:rate=40", slots=1)
    ledger = Ledger(server, random.Random(33))
    took = []
    async with neighbour(ledger, server):
        for how in WAYS:
            client = posted(ledger, server, 12, 2, stream=how != CLOSE)
            await soon(lambda: state(server) == (1, 2))
            took.append(await freed(server, client, how))
    check(took, STEP)
    ledger.check()


async def test_while_its_engine_is_started_again(start: Start) -> None:
    """It is not handed to the next one."""
    server = start(KNOBS, slots=SLOTS)
    ledger = Ledger(server, random.Random(34))
    async with neighbour(ledger, server):
        clients = {how: posted(ledger, server, 40, 1, stream=how != CLOSE) for how in WAYS}
        await soon(lambda: state(server) == (4, 0))
        server.engines()[0].kill()
        await soon(lambda: not server.ready(), 1)
        for how, client in clients.items():
            client.leave(how)
        await soon(lambda: server.outcomes().get("cancelled") == 3, 0.5)
        assert not server.ready(), "they left in time"
        await soon(server.ready)
        most = 0.0
        for _ in range(20):
            most = max(most, sum(await asyncio.to_thread(state, server)))
        assert most <= 1
        for client in clients.values():
            client.close()
    ledger.check()
