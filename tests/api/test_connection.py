"""Connections over real sockets, in this process: what is left of them."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncIterator

import pytest

from server.api.connection import Connection
from server.api.http_server import HttpServer
from server.settings import Settings

from .conftest import make_app

pytestmark = pytest.mark.anyio

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SAID = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
SENT = {
    "nothing": (b"", b""),
    "a request": (CHAT + b"Content-Length: %d\r\n\r\n" % len(SAID) + SAID, b"}"),
    "half a request": (CHAT + b"Content-Length: 900\r\n\r\n" + SAID, b""),
    "nonsense": (b"nonsense\r\n\r\n", b"}"),
    "two requests": (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 2, b"}"),
}


@pytest.fixture
async def port(unused_port: int) -> AsyncIterator[int]:
    app, _ = make_app()
    server = HttpServer(app, Settings(port=unused_port), lambda _: None)
    await server.start()
    yield unused_port
    await server.stop()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("kind", SENT)
async def test_nothing_is_left_for_the_collector(
    port: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full collections are rare: a connection that refers to itself would stay for hours."""
    known: weakref.WeakSet[Connection] = weakref.WeakSet()
    made = Connection.connection_made

    def connection_made(self: Connection, transport: object) -> None:
        known.add(self)
        made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", connection_made)
    sent, end = SENT[kind]
    gc.disable()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        if end:
            await reader.readuntil(end)
        while not known:
            await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(5):
            while len(known):
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
