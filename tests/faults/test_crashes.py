"""Engines that die again and again under load cost pauses, and not a token."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.e2e.conftest import Server, Start, until

from .ledger import LEFT, Ledger, soon

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.timeout(300)]

CRASHES = 12
TOGETHER = 6
DEATHS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
NOTICED = 0.2
"""Seconds from a death to a readiness that says so."""


async def test_crash_after_crash_loses_nothing(start: Start) -> None:
    """The next crash comes when all that saw the last one are done: each sees one at most."""
    server = start("echo=echo:rate=300", slots=4)
    ledger = Ledger(server, random.Random(11))
    async with server.async_client() as client:
        for crash in range(CRASHES):
            asked = [asyncio.create_task(ledger.ask(client)) for _ in range(TOGETHER)]
            enough = ledger.chance.randrange(1, 250)
            mine = slice(crash * TOGETHER, None)
            while sum(len(entry.text) for entry in ledger.entries[mine]) < enough:
                assert not any(task.done() for task in asked), ledger.entries[mine]
                await asyncio.sleep(0.002)
            os.kill(server.engines()[0].pid, ledger.chance.choice(DEATHS))
            await asyncio.gather(*asked)
        await ledger.ask(client)
    assert all(entry.outcome == "stop" for entry in ledger.entries)
    ledger.check()
    assert server.metric("ingle_engine_restarts_total") == CRASHES
    assert server.process.poll() is None


class Readiness:
    """All that /readyz said, and when, asked as fast as it answers."""

    def __init__(self, server: Server) -> None:
        self.said: list[tuple[float, int]] = []
        self.live: set[int] = set()
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        with httpx2.Client(base_url=self._server.base) as client:
            while not self._over.is_set():
                self.said.append((time.monotonic(), client.get("/readyz").status_code))
                self.live.add(client.get("/livez").status_code)

    @contextmanager
    def watched(self) -> Iterator[Readiness]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join(10)

    def first(self, status: int, since: float = 0.0) -> float:
        """When."""
        found = [at for at, said in self.said if said == status and at > since]
        assert found, f"never {status}"
        return found[0]


def gone(pid: int) -> bool:
    """Dead, buried or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


def death_of(pid: int) -> Callable[[], float]:
    """When it died, by a thread that does nothing but look."""
    died: list[float] = []

    def look() -> None:
        while not gone(pid):
            time.sleep(0.001)
        died.append(time.monotonic())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()

    def at() -> float:
        thread.join(20)
        return died[0]

    return at


@pytest.mark.parametrize(("kind", "reason"), [("abort", "SIGABRT"), ("segv", "SIGSEGV")])
async def test_a_native_crash_in_the_middle(start: Start, kind: str, reason: str) -> None:
    """Four streams and four that wait: all end as if nothing had been, in the order they came."""
    server = start(
        "echo=echo:rate=200,load=0.4",
        slots=4,
        fault_injection=True,
        faults=f"{kind}@step=40..,word=crash",
    )
    ledger = Ledger(server, random.Random(12))
    with Readiness(server).watched() as readiness:
        died = death_of(server.engines()[0].pid)
        async with server.async_client() as client:
            asked = []
            for _ in range(8):
                said = f"crash {ledger.canary(10)}"
                asked.append(asyncio.create_task(ledger.ask(client, said=said)))
                await asyncio.sleep(0.01)
            await asyncio.gather(*asked)
        died_at = died()
        assert readiness.first(503) - died_at < NOTICED
        assert readiness.first(200, since=readiness.first(503)) > died_at
        assert readiness.live == {200}
    began = [entry.began_at for entry in ledger.entries[4:]]
    assert began == sorted(began), "what waited keeps its order"
    assert all(entry.outcome == "stop" for entry in ledger.entries)
    ledger.check()
    assert f'model_name="echo",reason="{reason}"}} 1.0' in server.metrics()
    assert server.metric("ingle_engine_restarts_total") == 1


async def test_a_request_that_kills_every_engine_is_ended_and_its_neighbours_are_not(
    start: Start,
) -> None:
    """They are there at every crash too."""
    server = start(
        "echo=echo:rate=100,load=0.2",
        slots=4,
        fault_injection=True,
        faults="abort@word=poison,start=1..",
    )
    ledger = Ledger(server, random.Random(13))
    async with server.async_client() as client:
        beside = [asyncio.create_task(ledger.ask(client, 20)) for _ in range(6)]
        await soon(lambda: server.metric("ingle_requests_running") == 4)
        beside[2].cancel()
        ledger.entries[2].ends = [LEFT]
        poison = asyncio.create_task(ledger.ask(client, said=f"poison {ledger.canary(30)}"))
        late = asyncio.create_task(ledger.ask(client, 20))
        entry = await poison
        await asyncio.gather(*beside, late, return_exceptions=True)
    assert entry.error.startswith("engine_error"), entry
    assert Counter(e.outcome for e in ledger.entries) == {"stop": 6, LEFT: 1, entry.outcome: 1}
    ledger.check()
    assert server.metric("ingle_engine_restarts_total") == 2


async def test_an_engine_that_cannot_be_loaded_again_is_told_of_honestly(start: Start) -> None:
    server = start(
        "echo=echo:rate=100",
        slots=1,
        fault_injection=True,
        faults="abort@word=crash,step=40..; load_fail@start=2..",
    )
    ledger = Ledger(server, random.Random(14))
    body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}

    def refused() -> httpx2.Response:
        return httpx2.post(f"{server.base}/v1/chat/completions", json=body, timeout=2)

    async with server.async_client() as client:
        stream = asyncio.create_task(ledger.ask(client, said=f"crash {ledger.canary()}"))
        waiting = asyncio.create_task(ledger.ask(client, stream=False))
        await soon(lambda: not server.ready())
        assert refused().json()["error"]["code"] == "model_loading"
        ends = await asyncio.gather(stream, waiting)
    for entry in ends:
        assert entry.error.startswith("engine_unavailable"), entry
    assert (ends[0].status, ends[1].status) == (200, 503)
    answer = refused()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert answer.json()["error"]["code"] == "engine_unavailable"
    assert "its file cannot be loaded" in answer.json()["error"]["message"]
    assert httpx2.get(f"{server.base}/livez").status_code == 200
    assert not server.ready()
    assert server.process.poll() is None


def test_a_killed_server_frees_its_port_and_tells_nobody_that_all_is_done(start: Start) -> None:
    server = start("echo=echo:rate=50")
    engines = server.engines()
    url = f"{server.base}/v1/chat/completions"
    body = {"messages": [{"role": "user", "content": "many words " * 20}], "stream": True}
    heard = b""
    with (
        pytest.raises(httpx2.TransportError),
        httpx2.stream("POST", url, json=body | {"model": "echo"}) as answer,
    ):
        for piece in answer.iter_raw():
            heard += piece
            server.process.kill()
    assert heard and b"[DONE]" not in heard and b'finish_reason":"' not in heard
    until(lambda: all(gone(engine.pid) for engine in engines), 2)
    again = start("echo=echo:", port=server.port)
    assert httpx2.post(url, json=body | {"model": "echo", "stream": False}).status_code == 200
    assert again.port == server.port


def test_the_kernel_would_end_an_engine_before_the_server(start: Start) -> None:
    server = start()

    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    assert score(server.engines()[0].pid) > score(server.process.pid)
