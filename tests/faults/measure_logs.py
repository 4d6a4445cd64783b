"""What of its users' text a server's logs and metrics hold, and what its log lines cost."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import httpx2

from server import logs
from server.api.summary import Summaries, Summary
from server.core.stats import RequestRecord
from tests.e2e.conftest import Start, _serving

from . import odd
from .canaries import SECRET, send_all
from .table import Row

MODELS = ("echo", "embed", "rerank")
FORMS = ("json", "pretty")
ODD = 5000
LINES = 5000


def rows() -> list[Row]:
    with _serving() as start:
        return [_secrets(start), asyncio.run(_series(start)), _cost()]


def _secrets(start: Start) -> Row:
    sent = found = 0
    for form in FORMS:
        server = start(*_knobs(), log_level="debug", log_format=form)
        for model in MODELS:
            sent += len(send_all(server.base, model))
        metrics = httpx2.get(f"{server.base}/metrics").text
        assert server.stop() == 0
        found += (server.log() + metrics).lower().count(SECRET)
    what = (
        f"{sent} requests with a secret in every field, at log level debug: found in logs, metrics"
    )
    return Row(what, str(found), "0", found == 0)


def _knobs() -> list[str]:
    return ["echo=echo:", "embed=echo:embed", "rerank=echo:rerank"]


async def _series(start: Start) -> Row:
    server, words = start(log_level="error"), odd.words(ODD)
    async with httpx2.AsyncClient(base_url=server.base, timeout=30) as client:
        before = await odd.series(client, words[:1])
        after = await odd.series(client, words[1:])
    what = f"{ODD} random paths, methods and models: metric series before and after"
    most = odd.MOST_SERIES
    return Row(
        what, f"{before}, {after}", f"≤ 1 more, ≤ {most}", after - before <= 1 and after <= most
    )


class _Done:
    record = RequestRecord("m", "stop", 100, 50, 60, 0.001, 0.02, 1.2)

    def prompt(self) -> str:
        return ""


def _cost() -> Row:
    root = logging.getLogger()
    with open(os.devnull, "w") as nowhere:
        logs.configure("info", "json", stream=nowhere)
        summaries, summary = Summaries({"m"}, prompts=False), Summary("m", _Done())
        began = time.perf_counter()
        for _ in range(LINES):
            summaries.tell(summary, "req_0123456789", "POST", "/chat/completions", 200, 1.2)
        micros = (time.perf_counter() - began) / LINES * 1e6
        root.handlers.clear()
    return Row("The log line of a request", f"{micros:.0f} µs", "≤ 100 µs", micros <= 100)
