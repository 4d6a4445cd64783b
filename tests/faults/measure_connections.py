"""What idle, half-open and greedy clients cost the others.

By itself: `python -m tests.faults connections`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import secrets
import time
from collections.abc import Iterator

import psutil

from tests.e2e.conftest import Server, _serving

from .raw import Raw, posted
from .table import Row
from .test_slowloris import HALF_BODY, HALF_HEAD, LIVE
from .test_starvation import BODIES, livez_beside

IDLE = 1000
HALF_OPEN = 200
ROUNDS = 6
REQUESTS = 60
ENGINE = "echo=echo:rate=200,prefill=2000"
"""Reads these prompts in about 14 ms, as a small model on a CPU at best. What comes before a token
takes 1 ms, and its p99 of 2 ms scatters by more than a tenth, either way."""
CLIENTS = 50


def rows() -> list[Row]:
    with _serving() as start:
        return [*_idle(start(ENGINE)), *_greedy(start("echo=echo:", ctx=4096))]


def _idle(server: Server) -> Iterator[Row]:
    api = psutil.Process(server.process.pid)
    alone: list[float] = []
    beside: list[float] = []
    gc.disable()  # this process's own pauses are not the server's
    _first_tokens(server)
    before, grown = api.memory_info().rss, 0
    for _ in range(ROUNDS):
        alone += _first_tokens(server)
        with _crowd(server):
            beside += _first_tokens(server)
            grown = max(grown, api.memory_info().rss - before)
    gc.enable()
    for quantile in (0.5, 0.99):
        quiet, crowded = (sorted(times)[int(len(times) * quantile)] for times in (alone, beside))
        yield Row(
            f"time to the first token beside {IDLE} idle and {HALF_OPEN} half-open connections,"
            f" p{quantile * 100:.0f}",
            f"{crowded * 1000:.2f} ms, alone {quiet * 1000:.2f} ms ({crowded / quiet:.2f} ×)",
            "≤ 1.10 ×",
            crowded <= 1.10 * quiet,
        )
    each = grown / (IDLE + HALF_OPEN) / 1024
    yield Row("memory of the API process a connection", f"{each:.1f} KiB", "≤ 32 KiB", each <= 32)


@contextlib.contextmanager
def _crowd(server: Server) -> Iterator[None]:
    kinds = [LIVE] * IDLE + [HALF_HEAD, HALF_BODY] * (HALF_OPEN // 2)
    with contextlib.ExitStack() as stack:
        for data in kinds:
            raw = stack.enter_context(Raw(server))
            raw.send(data)
            if data is LIVE:
                raw.answer()
        time.sleep(0.5)
        yield
    time.sleep(0.5)


def _first_tokens(server: Server) -> list[float]:
    """Seconds, of requests one after the other on one connection; no prompt is known before."""
    took = []
    with Raw(server) as raw:
        for _ in range(REQUESTS):
            turn = {"role": "user", "content": f"{secrets.token_hex(4)} is new"}
            ask = {"messages": [turn], "max_tokens": 2, "temperature": 0, "stream": True}
            request = posted(json.dumps(ask).encode())
            started = time.perf_counter()
            raw.send(request)
            raw.until(b'"delta": {"content": "')
            took.append(time.perf_counter() - started)
            raw.until(b"[DONE]\n\n\r\n0\r\n\r\n")
    return took


def _greedy(server: Server) -> Iterator[Row]:
    for kind in ("one text", "calls"):
        took, answers = livez_beside(server, BODIES[kind](), CLIENTS, time.monotonic)
        p99 = took[int(len(took) * 0.99)]
        assert len(answers) == CLIENTS
        yield Row(
            f"/livez while {CLIENTS} clients send 4 MiB at once ({kind}), p99",
            f"{p99 * 1000:.0f} ms",
            "≤ 50 ms",
            p99 <= 0.05,
        )
