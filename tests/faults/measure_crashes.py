"""Engines that die under load, as their clients count it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import time
from itertools import pairwise

import openai

from tests.e2e.conftest import Server, _serving

from .ledger import Entry, Ledger
from .table import Row

CRASHES = 50
STREAMS = 6
DEATHS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
KNOBS = "echo=echo:rate=400"
PAUSE = 2.0
"""Seconds: a process of Python that imports numpy and llguidance, on two busy cores."""


async def crash(server: Server, ledger: Ledger, client: openai.AsyncOpenAI) -> list[float]:
    """Streams, a death among them. Returns how long each that was under way stood still."""
    before = len(ledger.entries)
    asked = [asyncio.create_task(ledger.ask(client, 6)) for _ in range(STREAMS)]
    enough = ledger.chance.randrange(1, 150)
    while sum(len(entry.text) for entry in ledger.entries[before:]) < enough:
        await asyncio.sleep(0.002)
    under_way = [e for e in ledger.entries[before:] if e.text and not e.ends]
    os.kill(server.engines()[0].pid, ledger.chance.choice(DEATHS))
    died_at = time.monotonic()
    await asyncio.gather(*asked)
    return [_pause(entry, died_at) for entry in under_way]


def _pause(entry: Entry, died_at: float) -> float:
    """What a dead engine said last may still be on its way."""
    return max(after - max(before, died_at) for before, after in pairwise(entry.heard_at))


async def _all(server: Server) -> tuple[Ledger, list[float]]:
    ledger, pauses = Ledger(server, random.Random(61)), []
    async with server.async_client() as client:
        for _ in range(CRASHES):
            pauses += await crash(server, ledger, client)
    return ledger, pauses


def rows() -> list[Row]:
    with _serving() as start:
        server = start(KNOBS, slots=4)
        ledger, pauses = asyncio.run(_all(server))
        survived = int(server.metric("ingle_engine_restarts_total"))
        ledger.check()
    owed = sum(len(entry.said.encode()) for entry in ledger.entries)
    heard = sum(len(entry.text.encode()) for entry in ledger.entries)
    repeated = sum(not entry.said.startswith(entry.text) for entry in ledger.entries)
    median = statistics.median(pauses)
    count = f"{len(ledger.entries)} answers, {owed} tokens"
    return [
        Row("engine crashes under load survived", f"{survived}", f"{CRASHES}", survived == CRASHES),
        Row(f"tokens lost ({count})", f"{owed - heard}", "0", owed == heard),
        Row("tokens repeated", f"{repeated}", "0", not repeated),
        Row(
            f"median pause of a stream ({len(pauses)})",
            f"{median:.2f} s",
            f"≤ {PAUSE:.1f} s",
            median <= PAUSE,
        ),
    ]
