"""The wall clock may jump: only what shows a date may notice."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
from pathlib import Path

import httpx2
import pytest

from tests.e2e.conftest import ROOT, Start, until

from .ledger import Ledger, soon

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

DAY = 86_400
SERVER = ROOT / "server"
CLOCK = re.compile(
    r"\b(time\.(time|time_ns|localtime|gmtime|strftime)|(date|datetime)\.(now|today|utcnow))\("
)
PATCH = """
import time
from pathlib import Path

real, jump = time.time, Path(__file__).with_name("jump")


def jumping():
    text = jump.read_text()
    return float(text[1:]) if text[:1] == "=" else real() + float(text)


time.time = jumping
time.time_ns = lambda: int(jumping() * 1e9)
"""
"""What each process of the server imports first: its wall clock is what a file says."""
SHOWS_DATES = {
    "app.py": "when the models' list says they were made",
    "schemas/head.py": "`created`",
    "schemas/models.py": "the same, for Anthropic's clients",
    "services/formats/traits.py": "today, for prompts",
    "services/templates.py": "today, for prompts",
    "tune/keeping.py": "when it was measured",
    "cli/bench.py": "when it was measured",
    "bench/run.py": "the same",
    "logs.py": "when a line was written",
    "api/summary.py": "when a request ended, for who looks at it",
    "services/sandbox.py": "what a template may ask for",
    "engine/state_files.py": "when a file was used, and so which goes first",
}


async def test_a_clock_that_jumps_ends_nothing(start: Start, tmp_path: Path) -> None:
    jump = tmp_path / "jump"
    jump.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(PATCH)
    server = start("echo=echo:rate=50", path=tmp_path, slots=2, watchdog_seconds=1.5, max_waiting=8)
    ledger = Ledger(server, random.Random(51))
    created = []
    async with server.async_client() as client:
        asked = [asyncio.create_task(ledger.ask(client, 14)) for _ in range(6)]
        await soon(lambda: server.metric("ingle_requests_running") == 2)
        for moved in (f"{DAY}", f"{-DAY}", f"={time.time()}"):
            jump.write_text(moved)
            await asyncio.sleep(0.5)
            assert server.ready()
            answer = await client.models.list()
            created.append(answer.data[0].created)
            hello = await client.chat.completions.create(
                model="echo",
                messages=[{"role": "user", "content": "hi"}],
                max_tokens=1,
            )
            created.append(hello.created)
        await asyncio.gather(*asked)
    assert max(created) - min(created) > DAY, "it did jump"
    assert server.metric("ingle_engine_restarts_total") == 0
    assert [entry.outcome for entry in ledger.entries] == ["stop"] * 6
    for line in server.metrics().splitlines():
        if "_seconds_sum" in line:
            assert 0 <= float(line.split()[-1]) < 600, line


def test_a_clock_that_jumps_while_the_server_drains(start: Start, tmp_path: Path) -> None:
    jump = tmp_path / "jump"
    jump.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(PATCH)
    server = start("echo=echo:rate=40", path=tmp_path)
    body = {"model": "echo", "messages": [{"role": "user", "content": "word " * 16}]}
    with (
        httpx2.Client(base_url=server.base, timeout=20) as client,
        client.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as answer,
    ):
        until(lambda: server.metric("ingle_requests_running") == 1)
        server.process.send_signal(signal.SIGTERM)
        jump.write_text(str(DAY))
        heard = answer.read().decode()
    assert heard.endswith("data: [DONE]\n\n") and '"error"' not in heard
    assert server.process.wait(10) == 0


def test_nothing_but_dates_asks_the_wall_clock() -> None:
    files = {str(path.relative_to(SERVER)): path for path in SERVER.rglob("*.py")}
    asks = {name for name, path in files.items() if CLOCK.search(path.read_text("utf-8"))}
    assert "schemas/head.py" in asks
    assert asks <= SHOWS_DATES.keys()
