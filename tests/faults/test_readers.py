"""A client that stops reading hurts itself alone, and little of its answer is kept for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import httpx2
import psutil
import pytest

from server.engine.ongoing import PILE_BYTES
from tests.e2e.conftest import Server, Start, until

from .burst import chat

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

STALLED_SECONDS = 6
LONG = "word " * 8000
SHORT = "a few words " * 20
A_REQUEST = 4 * PILE_BYTES
"""Of the events, of those taken last, of the frames made of them, and in the HTTP server."""
SLACK = 4 << 20
"""What the answers of the others and the allocator take meanwhile."""
SCORED = {"logprobs": True, "top_logprobs": 20}


def deaf(server: Server) -> socket.socket:
    """A client that reads the beginning of a stream of megabytes, and no more."""
    conn = socket.socket()
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    conn.connect(("127.0.0.1", server.port))
    conn.sendall(chat(LONG, stream=True, **SCORED))
    assert b"200 OK" in conn.recv(512)
    return conn


def _listen(server: Server, enough: threading.Event) -> int:
    """How many answers were heard, all of them right."""
    count = 0
    with server.client() as client:
        while not enough.is_set():
            answer = client.chat.completions.create(
                model="echo",
                messages=[{"role": "user", "content": SHORT}],
                temperature=0,
                stream=True,
            )
            assert "".join(chunk.choices[0].delta.content or "" for chunk in answer) == SHORT
            count += 1
    return count


def test_who_reads_nothing_is_paused_then_left_and_the_others_go_on(start: Start) -> None:
    server = start("echo=echo:", f"stalled={STALLED_SECONDS}", slots=8, ctx=65536)
    api = psutil.Process(server.process.pid)
    with ThreadPoolExecutor(4) as pool, ExitStack() as stack:
        _together(pool, server, lambda: time.sleep(2))
        before, most = api.memory_info().rss, 0

        def watch() -> None:
            nonlocal most
            for _ in range(4):
                stack.enter_context(closing(deaf(server)))
            deadline = time.monotonic() + 60
            while server.outcomes().get("cancelled") != 4:
                assert time.monotonic() < deadline, "they are not left"
                most = max(most, api.memory_info().rss - before)
                time.sleep(0.05)

        _together(pool, server, watch)
    assert most <= 4 * A_REQUEST + SLACK, f"{most / (1 << 20):.1f} MiB more"
    assert server.metric("ingle_requests_running") == 0


def _together(pool: ThreadPoolExecutor, server: Server, work: Callable[[], None]) -> None:
    """`work`, while four clients listen and hear something."""
    enough = threading.Event()
    listening = [pool.submit(_listen, server, enough) for _ in range(4)]
    try:
        work()
    finally:
        enough.set()
    assert all(heard.result() > 0 for heard in listening)


def _steps_end(server: Server) -> None:
    """Returns when its engine made no step for half a second."""
    steps = -1.0
    while steps != (steps := server.metric("ingle_step_seconds_count")):
        time.sleep(0.5)


def test_who_reads_on_in_time_hears_all_of_it(start: Start) -> None:
    """Paused, also across a crash, and told to go on again and again: each token once."""
    server = start("echo=echo:", f"stalled={STALLED_SECONDS}", slots=2, ctx=65536)
    text = LONG[:6000]
    narrow = httpx2.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)])
    heard, scored = "", 0
    with server.client(http_client=httpx2.Client(transport=narrow)) as client:
        stream = client.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": text}],
            temperature=0,
            stream=True,
            **SCORED,
        )
        for number, chunk in enumerate(stream):
            heard += chunk.choices[0].delta.content or ""
            scores = chunk.choices[0].logprobs
            scored += len(scores.content or ()) if scores else 0
            if number == 1:
                _steps_end(server)
                assert server.metric("ingle_requests_running") == 1, "it was not paused"
                server.engines()[0].kill()
                until(lambda: server.metric("ingle_engine_restarts_total") == 1)
                _steps_end(server)
    assert heard == text and scored == len(text)
