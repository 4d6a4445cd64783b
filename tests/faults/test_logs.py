"""Nothing that users write stands in a log or a metric, and nothing of it breaks a line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.e2e.conftest import Server, Start, until

from . import odd
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
        for crash in (1, 2):
            until(lambda: server.metric("ingle_requests_running", "slow") == 1)
            os.kill(server.engines()[0].pid, signal.SIGSEGV)
            until(lambda n=crash: server.metric("ingle_engine_restarts_total", "slow") == n)
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
def test_secrets_stay_out_of_every_line(start: Start, form: str, prompts: bool) -> None:
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
    err = server.log() + crashing.log()
    assert SECRET not in (metrics + out).lower()
    assert (SECRET in err.lower()) == prompts
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


def _ask(server: Server, number: str, model: str, **more: Any) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "word " * 50}], **more}
    headers = {"x-request-id": number}
    url = f"{server.base}{CHAT}"
    return httpx2.post(url, json=body, headers=headers, timeout=30).status_code


def _leave(server: Server, number: str, *, stream: bool) -> None:
    """After its first frame, or half a second."""
    body = {"model": "slow", "messages": [{"role": "user", "content": "word " * 50}]}
    headers, timeout = {"x-request-id": number}, httpx2.Timeout(10, read=0.5)
    asked = httpx2.stream(
        "POST",
        f"{server.base}{CHAT}",
        json=body | {"stream": stream},
        headers=headers,
        timeout=timeout,
    )
    with contextlib.suppress(httpx2.ReadTimeout), asked as answer:
        next(answer.iter_bytes())


def test_every_ending_is_one_line(start: Start) -> None:
    server = start("echo=echo:", "slow=echo:rate=20", slots=1, max_waiting=0, drain_seconds=1)

    def inside(number: int) -> bool:
        states = ("running", "waiting")
        return sum(server.metric(f"ingle_requests_{s}", "slow") for s in states) == number

    assert _ask(server, "whole", "echo") == 200
    assert _ask(server, "streamed", "echo", stream=True) == 200
    assert _ask(server, "refused", "echo", n=0) == 400
    _leave(server, "left", stream=False)
    _leave(server, "left-stream", stream=True)
    until(lambda: inside(0))
    with ThreadPoolExecutor() as pool:
        cut = [
            pool.submit(_ask, server, "cut", "slow"),
            pool.submit(_ask, server, "cut-stream", "slow", stream=True),
        ]
        until(lambda: inside(2))
        assert _ask(server, "overload", "echo") == 503
        assert _stopped(server) == ""
        assert [asked.result() for asked in cut] == [503, 200]
    events = [json.loads(line) for line in server.log().splitlines()]
    told = [
        (
            event["id"],
            event["status"],
            event.get("error"),
            event.get("finish"),
            event.get("client_gone", False),
        )
        for event in events
        if event["event"] == "request" and not event["id"].startswith("req_")
    ]
    assert sorted(told) == [
        ("cut", 503, "server_shutdown", "error", False),
        ("cut-stream", 200, "server_shutdown", "error", False),
        ("left", 499, None, "cancelled", True),
        ("left-stream", 200, None, "cancelled", True),
        ("overload", 503, "server_overloaded", None, False),
        ("refused", 400, "integer_below_min_value", None, False),
        ("streamed", 200, None, "stop", False),
        ("whole", 200, None, "stop", False),
    ]


@pytest.mark.anyio
async def test_five_thousand_odd_requests_make_no_series(start: Start) -> None:
    server, words = start(log_level="error"), odd.words(5000)
    async with httpx2.AsyncClient(base_url=server.base, timeout=30) as client:
        before = await odd.series(client, words[:1])
        after = await odd.series(client, words[1:])
        text = (await client.get("/metrics")).text
    assert after - before <= 1, "the metrics route itself"
    assert after <= odd.MOST_SERIES
    assert not any(word in text for word in words)
    assert server.log() == ""
