"""Nothing that users write stands in a log or a metric, and nothing of it breaks a line."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import string
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.e2e.conftest import Server, Start, until

from .canaries import CHAT, NASTY, SECRET, send_all, send_raw

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

KEY = f"sk-{SECRET}-0123456789"
LEVELS = ("debug", "info", "warning", "error")
MOST_SERIES = 300


def _metrics(server: Server) -> str:
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx2.get(f"{server.base}/metrics", headers=headers, timeout=10).text


def _crash(server: Server) -> None:
    """Twice under one request, which is the end of it."""
    body = {"messages": [{"role": "user", "content": NASTY * 20}], "temperature": 0}
    headers = {"authorization": f"Bearer {KEY}"}
    with ThreadPoolExecutor() as pool:
        url = f"{server.base}{CHAT}"
        asked = pool.submit(httpx2.post, url, json=body, headers=headers, timeout=60)
        for crash in ("1.0", "2.0"):
            until(lambda: 'ingle_requests_running{model_name="slow"} 1.0' in _metrics(server))
            os.kill(server.engines()[0].pid, signal.SIGSEGV)
            ended = f'ingle_engine_restarts_total{{model_name="slow"}} {crash}'
            until(lambda ended=ended: ended in _metrics(server))
        assert asked.result().status_code == 500


def _stopped(server: Server) -> str:
    """What it printed on standard output."""
    assert server.process.stdout is not None
    server.process.send_signal(signal.SIGTERM)
    out = server.process.stdout.read()
    assert server.stop() == 0
    return out


@pytest.mark.parametrize("form", ["json", "pretty"])
@pytest.mark.parametrize("prompts", [False, True])
def test_secrets_stay_out_of_every_line(
    start: Start, capfd: pytest.CaptureFixture[str], form: str, prompts: bool
) -> None:
    """With `log_prompts` they do stand there, or this test could not fail."""
    settings = {"api_key": KEY, "log_level": "debug", "log_format": form, "log_prompts": prompts}
    server = start("echo=echo:", "embed=echo:embed", "rerank=echo:rerank", **settings)
    models = ("echo", "embed", "rerank")
    statuses = [status for model in models for status in send_all(server.base, model, KEY)]
    assert {200, 400, 401, 404} <= set(statuses) and 500 not in statuses
    send_raw(server.port)
    crashing = start("slow=echo:rate=20", **settings)
    _crash(crashing)
    metrics = _metrics(server) + _metrics(crashing)
    out = _stopped(server) + _stopped(crashing)
    err = capfd.readouterr().err
    assert SECRET not in metrics + out
    assert (SECRET in err) == prompts
    lines = err.splitlines() if form == "pretty" else err.removesuffix("\n").split("\n")
    requests = _events(lines) if form == "json" else _pretty_events(lines)
    assert requests >= len(statuses)


def _events(lines: list[str]) -> int:
    events = [json.loads(line) for line in lines]
    for event in events:
        assert list(event)[:4] == ["timestamp", "level", "logger", "event"]
        assert event["level"] in LEVELS
    ended = [event for event in events if event["event"].startswith("an engine ended")]
    assert [event["reason"] for event in ended] == ["SIGSEGV"] * 2
    summaries = [event for event in events if event["event"] == "request"]
    failed = [event for event in summaries if event.get("error") == "engine_error"]
    assert [(event["model"], event["status"]) for event in failed] == [("slow", 500)]
    assert {event.get("model", "other") for event in summaries} <= {
        "echo",
        "slow",
        "embed",
        "rerank",
        "other",
    }
    return len(summaries)


def _pretty_events(lines: list[str]) -> int:
    for line in lines:
        assert line.isprintable(), repr(line)
        assert re.match(r"\d\d:\d\d:\d\d \[|    ", line), line
    return sum("] request " in line for line in lines)


async def _ask_oddly(client: httpx2.AsyncClient, word: str) -> None:
    """Three requests that no two clients send alike."""
    await client.request(word.upper(), f"/v1/models/{word}")
    await client.get(f"/{word}/{word}?{word}={word}", headers={"x-request-id": word})
    body = {"model": word, "user": word, "messages": [{"role": "user", "content": word}]}
    await client.post(CHAT, json=body)


@pytest.mark.anyio
async def test_five_thousand_odd_requests_make_no_series(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    server, chance = start(log_level="error"), random.Random(5)
    words = ["".join(chance.choices(string.ascii_lowercase, k=12)) for _ in range(1 + 5000 // 3)]
    counts = []
    async with httpx2.AsyncClient(base_url=server.base, timeout=30) as client:
        for some in (words[:1], words[1:]):
            for first in range(0, len(some), 16):
                asked = (_ask_oddly(client, word) for word in some[first : first + 16])
                await asyncio.gather(*asked)
            text = (await client.get("/metrics")).text
            counts.append(sum(not line.startswith("#") for line in text.splitlines()))
    assert counts[1] - counts[0] <= 1, "the metrics route itself"
    assert counts[1] <= MOST_SERIES
    assert not any(word in text for word in words)
    assert capfd.readouterr().err == ""
