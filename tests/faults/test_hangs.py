"""An engine that makes no progress is ended, and one that is only slow is not."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import httpx2
import pytest

from tests.e2e.conftest import Start, until

from .ledger import Ledger, soon

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

PATIENCE = 1.0
NOTICED = PATIENCE + 1.0
"""Seconds without progress until it is ended."""


async def test_a_frozen_engine_is_ended_and_its_requests_go_on(start: Start) -> None:
    server = start("echo=echo:rate=100", slots=2, watchdog_seconds=PATIENCE)
    ledger = Ledger(server, random.Random(21))
    async with server.async_client() as client:
        asked = [asyncio.create_task(ledger.ask(client, 20)) for _ in range(4)]
        await soon(lambda: server.metric("ingle_requests_running") == 2)
        await soon(lambda: all(entry.text for entry in ledger.entries[:2]))
        os.kill(server.engines()[0].pid, signal.SIGSTOP)
        frozen_at = time.monotonic()
        await soon(lambda: not server.ready(), NOTICED)
        assert httpx2.get(f"{server.base}/livez").status_code == 200
        await soon(lambda: server.metric("ingle_engine_restarts_total") == 1, NOTICED)
        assert time.monotonic() - frozen_at < NOTICED + 0.2
        await asyncio.gather(*asked)
    assert 'reason="hang"} 1.0' in server.metrics()
    assert [entry.outcome for entry in ledger.entries] == ["stop"] * 4
    ledger.check()


async def test_an_engine_that_is_busy_without_progress_is_ended_too(start: Start) -> None:
    """Its reader thread lives, and answers questions: steps are what counts."""
    server = start(
        "echo=echo:rate=100",
        watchdog_seconds=PATIENCE,
        fault_injection=True,
        faults="spin@word=round,step=40..",
    )
    ledger = Ledger(server, random.Random(22))
    async with server.async_client() as client:
        asked = [
            asyncio.create_task(ledger.ask(client, said=f"round {ledger.canary(20)}"))
            for _ in range(3)
        ]
        await soon(lambda: all(entry.text for entry in ledger.entries))
        tokens = httpx2.post(f"{server.base}/tokenize", json={"content": "abc"}, timeout=5)
        assert tokens.status_code == 200
        await asyncio.gather(*asked)
    assert 'reason="hang"} 1.0' in server.metrics()
    assert server.metric("ingle_engine_restarts_total") == 1
    assert [entry.outcome for entry in ledger.entries] == ["stop"] * 3
    ledger.check()


async def test_a_slow_engine_is_left_alone(start: Start) -> None:
    """Steps of four fifths of the patience, and a prompt of many such: nobody is ended."""
    server = start(
        "echo=echo:prefill=2000",
        watchdog_seconds=PATIENCE,
        ctx=8192,
        fault_injection=True,
        faults=f"sleep={int(PATIENCE * 800)}@word=slow,step=20..26",
    )
    ledger = Ledger(server, random.Random(23))
    unready = 0
    async with server.async_client() as client:
        short = asyncio.create_task(ledger.ask(client, said=f"slow {ledger.canary(2)}"))
        long = asyncio.create_task(
            ledger.ask(client, said=f"slow {ledger.canary(500)}", max_tokens=8)
        )
        while not (short.done() and long.done()):
            unready += not await asyncio.to_thread(server.ready)
            await asyncio.sleep(0.02)
        await asyncio.gather(short, long)
    assert unready == 0
    assert server.metric("ingle_engine_restarts_total") == 0
    assert [entry.outcome for entry in ledger.entries] == ["stop", "length"]
    ledger.check()


async def test_an_idle_engine_does_not_hang(start: Start) -> None:
    server = start("echo=echo:", watchdog_seconds=0.5)
    ledger = Ledger(server, random.Random(24))
    asked_at = time.monotonic()
    until(lambda: time.monotonic() - asked_at > 1.5)
    assert server.ready()
    ledger.check()
    assert server.metric("ingle_engine_restarts_total") == 0
