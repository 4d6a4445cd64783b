"""Two hundred at once against 4 slots and 16 places: `python -m tests.faults overload`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import psutil

from tests.e2e.conftest import Server, until

from .burst import Reply, burst, chat
from .table import Row

PLACES = {"slots": 4, "max_waiting": 16, "log_level": "error"}
INSIDE = 20
AT_ONCE = 200
BURSTS = 8
PHASE_SECONDS = 8.0
BACK_AFTER = 1.0
"""Seconds after which a client that was refused comes back, whatever it was told."""


def rows() -> list[Row]:
    with _server("echo=echo:rate=100") as server:
        burst(server.port, [chat("warm")] * INSIDE)
        replies = [_burst(server) for _ in range(BURSTS)]
        served = [sum(reply.status == 200 for reply in many) for many in replies]
        refused = [reply for many in replies for reply in many if reply.status == 503]
        rows = [
            Row(
                f"{AT_ONCE} requests at once, 4 slots, 16 places, {BURSTS} times",
                f"{min(served)} to {max(served)} served, {len(refused)} refused",
                f"{INSIDE} served, {BURSTS * (AT_ONCE - INSIDE)} refused",
                set(served) == {INSIDE} and len(refused) == BURSTS * (AT_ONCE - INSIDE),
            ),
            _refusals(refused),
        ]
    with _server("echo=echo:rate=100") as server:
        return rows + asyncio.run(_throughput(server))


@contextlib.contextmanager
def _server(knobs: str) -> Iterator[Server]:
    server = Server((knobs,), PLACES)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def _burst(server: Server) -> list[Reply]:
    replies = burst(server.port, [chat(f"{number} knocks") for number in range(AT_ONCE)])
    until(lambda: server.metric("ingle_requests_running") == 0)
    return replies


def _refusals(refused: list[Reply]) -> Row:
    """As the client sees it, on the same machine, all of whose requests were sent in ~2 ms."""
    seen = sorted(reply.seconds * 1000 for reply in refused)
    inside = max(int(reply.headers["openai-processing-ms"]) for reply in refused)
    p50, p99 = seen[len(seen) // 2], seen[int(len(seen) * 0.99)]
    return Row(
        "a refusal, from its request's last byte sent to its own last byte received",
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, of it {inside} ms at most once it was read",
        "p99 ≤ 20 ms",
        p99 <= 20,
    )


async def _throughput(server: Server) -> list[Row]:
    api = psutil.Process(server.process.pid)
    async with _clients(server, INSIDE):
        alone = await _rate(server)
        before = api.memory_info().rss
        async with _clients(server, AT_ONCE - INSIDE):
            crowded = await _rate(server)
            grown = (api.memory_info().rss - before) / (1 << 20)
    return [
        Row(
            f"tokens a second with {AT_ONCE} clients, of those with {INSIDE}",
            f"{crowded / alone:.1%} ({alone:.0f}, {crowded:.0f})",
            "≥ 95 %",
            crowded >= 0.95 * alone,
        ),
        Row(
            f"memory of the API process, {AT_ONCE} clients instead of {INSIDE}",
            f"{grown:+.1f} MiB",
            "≤ 16 MiB",
            grown <= 16,
        ),
    ]


@contextlib.asynccontextmanager
async def _clients(server: Server, count: int) -> AsyncIterator[None]:
    """So many that ask again and again meanwhile."""
    tasks = [asyncio.create_task(_asking(server, number)) for number in range(count)]
    await asyncio.sleep(1)
    try:
        yield
    finally:
        failed = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not failed, "a client was not answered"


async def _asking(server: Server, number: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        while True:
            writer.write(chat(f"client {number} asks for a few words again"))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
            if head.startswith("http/1.1 503"):
                await asyncio.sleep(BACK_AFTER)
    finally:
        writer.close()


async def _rate(server: Server) -> float:
    """Generated tokens a second."""
    began, before = time.monotonic(), await asyncio.to_thread(_generated, server)
    await asyncio.sleep(PHASE_SECONDS)
    return (await asyncio.to_thread(_generated, server) - before) / (time.monotonic() - began)


def _generated(server: Server) -> float:
    return server.metric("ingle_generated_tokens_total")
