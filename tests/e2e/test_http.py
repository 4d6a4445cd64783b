"""HTTP as clients and proxies speak it: upgrades, HEAD, compression, retries, many SDK habits."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import httpx2
import openai
import pytest

from .conftest import Server, Start, until

pytestmark = pytest.mark.e2e

CHAT = "/v1/chat/completions"
HI = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


@pytest.fixture
def raw(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        yield connection


def answer(raw: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next response of a connection: one with a length."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += raw.recv(65536) or pytest.fail("closed before the headers' end")
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    while len(body) < int(headers["content-length"]):
        body += raw.recv(65536)
    return int(status.split()[1]), headers, body


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/responses", 404), (CHAT, 405), ("/v1/realtime?model=x", 404)]
)
def test_a_websocket_upgrade_is_refused_in_http(raw: socket.socket, path: str, status: int) -> None:
    raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode() + WEBSOCKET + b"\r\n")
    found, headers, body = answer(raw)
    assert found == status
    assert headers["content-type"] == "application/json"
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    raw.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert answer(raw)[0] == 200


def test_an_offer_of_http2_is_declined_and_the_request_served(raw: socket.socket) -> None:
    """As Java's own client offers it, every time."""
    body = json.dumps(HI).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
    )
    for _ in range(3):
        raw.sendall(head.encode() + H2C + b"\r\n" + body)
        status, _, answered = answer(raw)
        assert status == 200
        assert json.loads(answered)["choices"][0]["message"]["content"] == "Hi"


def test_head_has_the_headers_of_get_and_no_body(raw: socket.socket) -> None:
    raw.sendall(
        b"HEAD /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    )
    received = b""
    while b'{"status":"ok"}' not in received:
        received += raw.recv(65536) or pytest.fail("closed")
    first, second, body = received.split(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200") and b"content-length: " in first
    assert second.startswith(b"HTTP/1.1 200")
    assert body == b'{"status":"ok"}'


def test_a_compressed_request_is_answered(server: Server) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    content = gzip.compress(json.dumps(HI).encode())
    response = httpx2.post(server.base + CHAT, content=content, headers=headers)
    assert response.json()["choices"][0]["message"]["content"] == "Hi"


def _preflight(server: Server, origin: str, method: str = "POST") -> httpx2.Headers:
    asked = "authorization, content-type, x-stainless-lang, x-stainless-retry-count"
    headers = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": asked,
    }
    response = httpx2.options(server.base + CHAT, headers=headers)
    assert response.status_code in (200, 204)
    if "access-control-allow-origin" in response.headers:
        assert set(response.headers["access-control-allow-headers"].split(", ")) == set(
            asked.split(", ")
        )
    return response.headers


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:5173", True),
        ("http://127.0.0.1", True),
        ("http://localhost.evil.com", False),
        ("http://evil.com/localhost", False),
        ("null", False),
    ],
)
def test_pages_of_this_machine_alone_may_ask(start: Start, origin: str, allowed: bool) -> None:
    """Before any key, and errors too."""
    server = start(api_key="sk-right")
    found = [_preflight(server, origin)]
    for path, key, status in [
        (CHAT, "wrong", 401),
        ("/v1/nothing", "sk-right", 404),
        (CHAT, "sk-right", 400),
    ]:
        headers = {"origin": origin, "authorization": f"Bearer {key}"}
        answer = httpx2.post(server.base + path, json={}, headers=headers)
        assert answer.status_code == status
        found.append(answer.headers)
    for headers in found:
        assert headers.get("access-control-allow-origin") == (origin if allowed else None)
        assert "access-control-allow-credentials" not in headers


def test_a_page_sees_errors_and_streams(server: Server) -> None:
    page = {"origin": "http://localhost:5173"}
    for body in ({}, HI | {"stream": True}, HI):
        response = httpx2.post(server.base + CHAT, json=body, headers=page)
        assert response.headers["access-control-allow-origin"] == page["origin"]
        assert "content-encoding" not in response.headers


def test_the_sdk_finds_a_model_with_a_slash_in_its_name(client: openai.OpenAI) -> None:
    assert client.models.retrieve("org/golden").id == "org/golden"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("org/none")
    assert caught.value.code == "model_not_found"


def test_the_sdk_knows_the_request_by_its_id(client: openai.OpenAI) -> None:
    answered = client.chat.completions.create(**HI, extra_headers={"X-Request-Id": "mine"})
    assert answered._request_id == "mine"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**HI | {"temperature": 9})
    assert (caught.value.request_id or "").startswith("req_")


class _Counting(httpx2.BaseTransport):
    def __init__(self) -> None:
        self._inner = httpx2.HTTPTransport()
        self.answers: list[httpx2.Response] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.answers.append(self._inner.handle_request(request))
        return self.answers[-1]

    def close(self) -> None:
        self._inner.close()


def test_the_sdk_comes_back_to_a_full_server_when_told_to(start: Start) -> None:
    server = start("echo=echo:rate=20", slots=1, max_waiting=0)
    counting = _Counting()
    patient = openai.OpenAI(
        base_url=f"{server.base}/v1",
        api_key="none",
        max_retries=5,
        http_client=httpx2.Client(transport=counting),
    )
    long = [{"role": "user", "content": "x" * 40}]
    with server.client() as first, patient:
        stream = first.chat.completions.create(**HI | {"messages": long}, stream=True)
        next(stream)
        assert patient.chat.completions.create(**HI).choices[0].message.content == "Hi"
        stream.close()
    *refused, last = counting.answers
    assert refused and last.status_code == 200
    for response in refused:
        assert response.status_code == 503
        assert 1 <= int(response.headers["retry-after"]) <= 60


def test_a_client_that_times_out_and_retries_runs_one_generation_at_most(start: Start) -> None:
    server = start("echo=echo:rate=20")
    body = HI | {"messages": [{"role": "user", "content": "x" * 500}]}
    running: list[float] = []

    def impatient() -> None:
        with (
            openai.OpenAI(
                base_url=f"{server.base}/v1", api_key="none", max_retries=2, timeout=0.7
            ) as hasty,
            pytest.raises(openai.APITimeoutError),
        ):
            hasty.chat.completions.create(**body)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(impatient)
        while not asking.done():
            running.append(server.metric("ingle_requests_running"))
        asking.result()
    starts = sum(after > before for before, after in pairwise([0.0, *running]))
    assert max(running) == 1 and starts >= 2, "one at a time, whichever try it is"
    until(lambda: server.metric("ingle_requests_running") == 0, 2)


def test_a_key_file_guards_the_server(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("sk-ada # Ada\nsk-bob\n")
    file.chmod(0o600)
    server = start(api_key_file=file)
    for key in ("sk-ada", "sk-bob"):
        with server.client(api_key=key) as client:
            assert client.models.list().data
    with server.client(api_key="sk-eve") as wrong, pytest.raises(openai.AuthenticationError):
        wrong.chat.completions.create(**HI, stream=True)
