"""A client that stops reading hurts itself alone."""

from __future__ import annotations

import json
import socket

import pytest

from tests.e2e.conftest import Start, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def test_a_client_that_reads_nothing_is_left_and_others_go_on(start: Start) -> None:
    server = start("echo=echo:", slots=2, ctx=65536)
    body = json.dumps(
        {
            "model": "echo",
            "messages": [{"role": "user", "content": "word " * 6000}],
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 20,
            "stream": True,
        }
    ).encode()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/json\r\nContent-Length: "
            + str(len(body)).encode()
            + b"\r\n\r\n"
            + body
        )
        assert b"200 OK" in deaf.recv(512)
        with server.client() as client:
            for _ in range(5):
                answer = client.chat.completions.create(
                    model="echo", messages=[{"role": "user", "content": "hello you"}], temperature=0
                )
                assert answer.choices[0].message.content == "hello you"
        until(lambda: server.outcomes().get("cancelled") == 1, 60)
        assert server.metric("ingle_requests_running") == 0
