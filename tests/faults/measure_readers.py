"""Four of eight clients stop reading: `python -m tests.faults readers`."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, closing

import openai
import psutil

from tests.e2e.conftest import Server

from .table import Row
from .test_readers import A_REQUEST, SLACK, deaf

LISTENING = 4
DEAF = 4
ALONE_SECONDS = 8.0
FILLING_SECONDS = 16.0
"""Until the buffers of the kernel are full and they are paused; after 30 more they are left."""
TEXT = "a few words " * 30


def rows() -> list[Row]:
    server = Server(("echo=echo:rate=200",), {"slots": 8, "ctx": 65536, "log_level": "error"})
    try:
        server.wait_until_ready()
        return asyncio.run(_measure(server))
    finally:
        server.stop()


async def _measure(server: Server) -> list[Row]:
    async with server.async_client() as client:
        await _gaps(client, 2.0)
        alone = await _gaps(client, ALONE_SECONDS)
        with ExitStack() as stack:
            for _ in range(DEAF):
                stack.enter_context(closing(await asyncio.to_thread(deaf, server)))
            growing = asyncio.create_task(_growth(server))
            await _gaps(client, FILLING_SECONDS)
            beside = await _gaps(client, ALONE_SECONDS)
            running = await asyncio.to_thread(server.metric, "ingle_requests_running")
            assert running >= DEAF, "they were left already"
            growing.cancel()
            grown = await growing
    most = DEAF * A_REQUEST + SLACK
    before, after = (sorted(gaps)[int(len(gaps) * 0.99)] * 1000 for gaps in (alone, beside))
    return [
        Row(
            f"memory of the API process, {DEAF} of {DEAF + LISTENING} clients reading nothing",
            f"{grown / (1 << 20):+.1f} MiB",
            f"≤ {DEAF} × {A_REQUEST >> 10} KiB and {SLACK >> 20} MiB",
            grown <= most,
        ),
        Row(
            "p99 of the gap between two chunks of the others, before and while they are paused",
            f"{before:.1f} and {after:.1f} ms",
            "≤ +10 %",
            after <= 1.1 * before,
        ),
    ]


async def _growth(server: Server) -> int:
    """The most bytes that the API process had more than now, until it is cancelled."""
    api = psutil.Process(server.process.pid)
    before, most = api.memory_info().rss, 0
    try:
        while True:
            most = max(most, api.memory_info().rss - before)
            await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        return most


async def _gaps(client: openai.AsyncOpenAI, seconds: float) -> list[float]:
    """Of streams asked for one after the other by each of those that listen."""
    until = time.monotonic() + seconds
    found = await asyncio.gather(*(_listen(client, until) for _ in range(LISTENING)))
    return [gap for gaps in found for gap in gaps]


async def _listen(client: openai.AsyncOpenAI, until: float) -> list[float]:
    gaps: list[float] = []
    while time.monotonic() < until:
        last = None
        async for chunk in await client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": TEXT}], temperature=0, stream=True
        ):
            if chunk.choices[0].delta.content:
                now = time.monotonic()
                gaps += [now - last] if last is not None else []
                last = now
    return gaps
