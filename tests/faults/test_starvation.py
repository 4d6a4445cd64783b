"""The largest bodies there may be, all at once, do not keep the server from answering others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx2
import pytest

from server.settings import Settings
from tests.e2e.conftest import Server, Start

from .raw import CHAT, Neighbour, Raw, loop_seconds, posted

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CLIENTS = 50
SIZE = Settings().max_body_bytes - 4096
_SAY_A = {"role": "user", "content": "a"}


def _chat(**fields: Any) -> bytes:
    return json.dumps({"model": "echo", "messages": [_SAY_A]} | fields, ensure_ascii=False).encode()


def _calls() -> bytes:
    function = {"name": "f", "arguments": "{}"}
    call = {"id": "a", "type": "function", "function": function}
    turn = {"role": "assistant", "tool_calls": [call] * 4900}
    return _chat(messages=[turn, {"role": "user", "content": "x" * (SIZE - 900_000)}])


def _schema() -> bytes:
    part = {"type": "string", "description": "x" * (SIZE // 15_000 - 60)}
    schema = {"type": "object", "properties": {f"{i}": part for i in range(15_000)}}
    return _chat(response_format={"type": "json_schema", "json_schema": {"schema": schema}})


BODIES: dict[str, Callable[[], bytes]] = {
    "one text": lambda: _chat(messages=[{"role": "user", "content": "word " * (SIZE // 5)}]),
    "marks": lambda: _chat(messages=[{"role": "user", "content": "<|end|>" * (SIZE // 7)}]),
    "turns": lambda: _chat(messages=[{"role": "user", "content": "w" * 350}] * 10_000),
    "calls": _calls,
    "fields": lambda: _chat(**{f"k{i}": "x" * 60 for i in range(49_000)}),
    "schema": _schema,
}
"""What is slow to read, each in its own way."""


def livez_beside(
    server: Server, body: bytes, clients: int, clock: Callable[[], float]
) -> tuple[list[float], list[bytes]]:
    """Sorted seconds of requests for /livez while so many clients post it; and their answers."""
    request = posted(body, "Connection: close")
    took: list[float] = []
    done = threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=server.base, timeout=30) as client:
            client.get("/livez")
            while not done.is_set():
                started = clock()
                assert client.get("/livez").status_code == 200
                took.append(clock() - started)
                time.sleep(0.002)

    def post() -> bytes:
        with Raw(server, 120) as raw:
            raw.send(request)
            return b"".join(iter(lambda: raw.socket.recv(65536), b""))

    with ThreadPoolExecutor(clients + 1) as pool:
        asking = pool.submit(ask)
        answers = [posting.result() for posting in [pool.submit(post) for _ in range(clients)]]
        done.set()
        asking.result()
    return sorted(took), answers


@pytest.mark.parametrize("kind", BODIES)
def test_the_largest_bodies_starve_nobody(start: Start, kind: str) -> None:
    server = start("echo=echo:", "slow=echo:rate=100", ctx=4096)
    body = BODIES[kind]()
    assert SIZE * 0.7 < len(body) <= SIZE + 4096
    with Neighbour(server, "slow").beside(0.5):
        busy, answers = livez_beside(
            server, body, CLIENTS // len(BODIES) + 1, partial(loop_seconds, server)
        )
    assert busy[int(len(busy) * 0.99)] < 0.15, busy[-5:]
    assert {answer[9:12] for answer in answers} <= {b"200", b"400", b"503"}
    assert httpx2.get(f"{server.base}{CHAT}").status_code == 405
