"""Many requests at the same moment, over connections that are open already."""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """`seconds` from the last byte sent to the last one received."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def chat(text: str, **more: object) -> bytes:
    """A request for the echo of `text`."""
    messages = [{"role": "user", "content": text}]
    body = json.dumps({"model": "echo", "messages": messages, "temperature": 0} | more).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\n"
        b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )


def burst(port: int, requests: Sequence[bytes], seconds: float = 60.0) -> list[Reply]:
    """All are sent before the first answer is read. Fails when one is not answered in time."""
    conns = [socket.create_connection(("127.0.0.1", port)) for _ in requests]
    try:
        sent = []
        for conn, request in zip(conns, requests, strict=True):
            conn.sendall(request)
            sent.append(time.monotonic())
        return _replies(conns, sent, seconds)
    finally:
        for conn in conns:
            conn.close()


def _replies(conns: list[socket.socket], sent: list[float], seconds: float) -> list[Reply]:
    received = [b""] * len(conns)
    replies: dict[int, Reply] = {}
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for index, conn in enumerate(conns):
            conn.setblocking(False)
            selector.register(conn, selectors.EVENT_READ, index)
        while len(replies) < len(conns):
            left = deadline - time.monotonic()
            assert left > 0, f"{len(conns) - len(replies)} were not answered within {seconds} s"
            for key, _ in selector.select(left):
                index = key.data
                data = conns[index].recv(1 << 16)
                assert data, f"closed after {received[index]!r}"
                received[index] += data
                reply = _parsed(received[index], time.monotonic() - sent[index])
                if reply is not None:
                    replies[index] = reply
                    selector.unregister(conns[index])
    return [replies[index] for index in range(len(conns))]


def _parsed(data: bytes, seconds: float) -> Reply | None:
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if len(body) < int(headers["content-length"]):
        return None
    return Reply(int(first.split()[1]), headers, body, seconds)
