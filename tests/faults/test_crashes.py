"""Engines that die again and again under load cost pauses, and not a token."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

from tests.e2e.conftest import Start

from .ledger import Ledger

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.timeout(300)]

CRASHES = 50
TOGETHER = 6
DEATHS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)


async def test_fifty_crashes_lose_nothing(start: Start) -> None:
    """The next crash comes when all that saw the last one are done: each sees one at most."""
    server = start("echo=echo:rate=300", slots=4)
    ledger = Ledger(server, random.Random(11))
    async with server.async_client() as client:
        for crash in range(CRASHES):
            asked = [asyncio.create_task(ledger.ask(client)) for _ in range(TOGETHER)]
            enough = ledger.chance.randrange(1, 250)
            mine = slice(crash * TOGETHER, None)
            while sum(len(entry.heard) for entry in ledger.entries[mine]) < enough:
                assert not any(task.done() for task in asked), ledger.entries[mine]
                await asyncio.sleep(0.002)
            os.kill(server.engines()[0].pid, ledger.chance.choice(DEATHS))
            await asyncio.gather(*asked)
        await ledger.ask(client)
    ledger.check()
    assert server.metric("ingle_engine_restarts_total") == CRASHES
    assert server.process.poll() is None
