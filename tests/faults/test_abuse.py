"""What is no HTTP, no JSON, or too much of it is refused at once, and nobody else notices."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from server.api.connection import MAX_PIPELINED
from server.api.head import MAX_HEAD_BYTES
from tests.e2e.conftest import Server, _serving

from .raw import CHAT, HI, Neighbour, Raw, posted

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

MOST_SECONDS = 5.0
"""A deadline would take twice as long."""
GAP = 0.25
"""Of a stream that says something every 10 ms, in seconds of the loop's time."""
GET = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n".encode()
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
TLS = bytes.fromhex("1603010200010001fc0303") + bytes(200)

NO_HTTP: dict[str, bytes] = {
    "chunk without its end": CHUNKED + b"5\r\nhelloXX0\r\n\r\n" + HIDDEN,
    "chunks with bare line feeds": CHUNKED + b"5\nhello\n0\n\n" + HIDDEN,
    "chunk size in C": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n" + HIDDEN,
    "chunk size below zero": CHUNKED + b"-1\r\nhello\r\n0\r\n\r\n" + HIDDEN,
    "chunk size of 68 bits": CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n" + HIDDEN,
    "length in a trailer": CHUNKED + b"2\r\n{}\r\n0\r\nContent-Length: 3\r\n\r\n",
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunks and not": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunks misspelt": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "gzip as transfer": POST + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + HIDDEN,
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "length below zero": POST + b"Content-Length: -5\r\n\r\nhello",
    "length of 77 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "folded header": GET + b"a: b\r\n c\r\n\r\n",
    "NUL in a header": GET + b"a: b\0c\r\n\r\n",
    "CR in a header": GET + b"a: b\rc: d\r\n\r\n",
    "bare line feeds": b"GET /livez HTTP/1.1\nHost: x\n\n",
    "space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "header without a colon": GET + b"abc\r\n\r\n",
    "header without a name": GET + b": x\r\n\r\n",
    "two hosts": GET + b"Host: localhost\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "no path": b"GET http://127.0.0.1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a proxy's target": b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "a proxy's path": b"CONNECT /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a method nobody knows": b"BREW /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a method of many letters": b"A" * 100_000,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/9.9": b"GET /livez HTTP/9.9\r\n\r\n",
    "TLS": TLS,
    "NULs": bytes(100),
    "a target that is no ASCII": "GET /é HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
}
MUCH = b"x" * (1 << 20)
TOO_LARGE: dict[str, bytes] = {
    "a header of 1 MiB": GET + b"a: " + MUCH + b"\r\n\r\n",
    "a header's name of 1 MiB": GET + MUCH + b": a\r\n\r\n",
    "10 000 headers": GET + b"a: b\r\n" * 10_000 + b"\r\n",
    "a target of 60 KB": b"GET /" + MUCH[:60_000] + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a bit too much": GET + b"a: " + MUCH[:MAX_HEAD_BYTES] + b"\r\n\r\n",
    "a chunk's extension of 1 MiB": CHUNKED + b"5;a=" + MUCH + b"\r\nhello\r\n0\r\n\r\n",
    "a trailer of 1 MiB": CHUNKED + b"1\r\n{\r\n0\r\na: " + MUCH + b"\r\n\r\n",
    "a trailer of 200 KB": CHUNKED + b"1\r\n{\r\n0\r\na: " + MUCH[:200_000] + b"\r\n\r\n",
    "line ends for ever": b"\r\n" * 100_000,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """`slow` takes 0.6 s for what a neighbour is told."""
    with _serving() as start:
        yield start("echo=echo:", "slow=echo:rate=100", "embed=echo:embed", ctx=4096)


@pytest.fixture
def beside(server: Server) -> Iterator[None]:
    """A stream runs, and is not held up."""
    with Neighbour(server, "slow").beside(GAP):
        yield


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("case", NO_HTTP)
def test_what_is_no_http_is_refused(server: Server, case: str) -> None:
    started = time.monotonic()
    with Raw(server) as raw:
        raw.send(NO_HTTP[case])
        answer = raw.answer()
        assert answer.status == 400 and answer.headers["connection"] == "close"
        assert answer.error()["code"] == "malformed_request"
        assert raw.is_closed()
    assert time.monotonic() - started < MOST_SECONDS


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("case", TOO_LARGE)
def test_heads_are_bounded(server: Server, case: str) -> None:
    started = time.monotonic()
    with Raw(server) as raw:
        raw.send(TOO_LARGE[case])
        answer = raw.answer()
        assert answer.status == 431 and answer.headers["connection"] == "close"
        assert answer.error()["code"] == "headers_too_large"
        assert str(MAX_HEAD_BYTES) in answer.error()["message"]
        assert raw.is_closed()
    assert time.monotonic() - started < MOST_SECONDS


@pytest.mark.parametrize("bad", [GET + b"Host: localhost\r\n\r\n", GET + b"a: " + MUCH])
def test_a_bad_head_costs_its_own_request_and_no_earlier_one(server: Server, bad: bytes) -> None:
    """On a connection that has answered, and behind an answer that is still being given."""
    body = HI | {"model": "slow", "stream": True}
    with Raw(server) as raw:
        raw.answers_on()
        raw.send(bad)
        assert raw.answer().status in (400, 431) and raw.is_closed()
    with Raw(server) as raw:
        raw.send(posted(json.dumps(body).encode()))
        raw.until(b'"content": "H"')
        raw.send(bad)
        raw.until(b"data: [DONE]")
        raw.until(b"0\r\n\r\n")
        assert raw.answer().status in (400, 431) and raw.is_closed()


def test_a_head_may_be_as_large_as_it_may_be(server: Server) -> None:
    with Raw(server) as raw:
        raw.send(GET + b"a: " + MUCH[: MAX_HEAD_BYTES - 200] + b"\r\n\r\n")
        assert raw.answer().status == 200
        raw.answers_on()


def _body(**fields: Any) -> bytes:
    return json.dumps(HI | fields).encode()


def _with(raw: str) -> bytes:
    """A request with a field in the client's own JSON."""
    return _body().removesuffix(b"}") + f', "unknown": {raw}}}'.encode()


TYPE = "Content-Type: "
NINES = "9" * 5000
BODIES: dict[str, tuple[bytes, int, str | None, str | None]] = {
    "1 000 deep": (_with("[" * 1000 + "]" * 1000), 400, "json_too_deep", None),
    "1 000 deep and open": (_with("[" * 1000), 400, None, None),
    "5 000 digits": (_with(NINES), 400, None, None),
    "5 000 digits where a number is": (
        _body().removesuffix(b"}") + f', "max_tokens": {NINES}}}'.encode(),
        400,
        None,
        None,
    ),
    "4 000 digits where a number is": (
        _body().removesuffix(b"}") + f', "top_logprobs": {NINES[:4000]}}}'.encode(),
        400,
        "integer_above_max_value",
        "top_logprobs",
    ),
    "NaN": (_with("NaN"), 400, None, None),
    "NaN where a number is": (_body(temperature=float("nan")), 400, None, None),
    "1e999 where a number is": (
        _body().removesuffix(b"}") + b', "temperature": 1e999}',
        400,
        "invalid_value",
        "temperature",
    ),
    "bytes that are no UTF-8": (_body().replace(b"Hi", b"\xff\xfe"), 400, None, None),
    "UTF-16": (_body().decode().encode("utf-16"), 400, None, None),
    "a lone surrogate": (_body().replace(b"Hi", b"\\ud800"), 400, None, None),
    "a surrogate as bytes": (_body().replace(b"Hi", b"\xed\xa0\x80"), 400, None, None),
    "nothing": (b"", 400, None, None),
    "a list": (b"[]", 400, None, None),
    "two objects": (_body() * 2, 400, None, None),
    "half an object": (_body()[:-9], 400, None, None),
    "a comment": (_body() + b"// so", 400, None, None),
}


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("case", BODIES)
def test_what_is_no_json_is_refused(server: Server, case: str) -> None:
    body, status, code, param = BODIES[case]
    started = time.monotonic()
    with Raw(server) as raw:
        raw.send(posted(body))
        answer = raw.answer()
        error = answer.error()
        assert (answer.status, error["code"], error["param"]) == (status, code, param), error
        assert len(error["message"]) < 500
        raw.answers_on()
    assert time.monotonic() - started < MOST_SECONDS


HEADERS: dict[str, tuple[bytes, str, int, str | None]] = {
    "a form": (b"model=echo", TYPE + "application/x-www-form-urlencoded", 400, None),
    "parts of a form": (b"--a\r\n", TYPE + "multipart/form-data; boundary=a", 400, None),
    "text": (_body(), TYPE + "text/plain", 400, None),
    "no gzip": (_body(), "Content-Encoding: gzip", 400, None),
    "gzip that is cut": (gzip.compress(_body())[:-5], "Content-Encoding: gzip", 400, None),
    "a bomb": (gzip.compress(bytes(20 << 20)), "Content-Encoding: gzip", 413, "request_too_large"),
    "gzip twice": (b"", "Content-Encoding: gzip, gzip", 415, "unsupported_content_encoding"),
    "brotli": (b"", "Content-Encoding: br", 415, "unsupported_content_encoding"),
}


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("case", HEADERS)
def test_bodies_of_other_kinds_are_refused(server: Server, case: str) -> None:
    body, header, status, code = HEADERS[case]
    request = posted(body, header)
    if header.startswith(TYPE):
        request = request.replace(b"Content-Type: application/json\r\n", b"")
    with Raw(server) as raw:
        raw.send(request)
        answer = raw.answer()
        assert answer.status == status, answer
        assert code is None or answer.error()["code"] == code
        assert answer.error()["type"] == "invalid_request_error"


def test_of_two_equal_keys_the_last_counts(server: Server) -> None:
    body = _body(max_tokens=1).removesuffix(b"}") + b', "max_tokens": 2, "max_tokens": 2}'
    with Raw(server) as raw:
        raw.send(posted(body))
        assert json.loads(raw.answer().body)["usage"]["completion_tokens"] == 2


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_a_byte_too_long_is_refused_and_the_refusal_arrives(
    server: Server, announced: bool
) -> None:
    """However much more of it is on its way, and though the client sends it all before it reads."""
    size = (4 << 20) + 1
    started = time.monotonic()
    with Raw(server) as raw:
        if announced:
            raw.socket.sendall(posted(b" " * size))
        else:
            raw.socket.sendall(CHUNKED + b"%x\r\n" % (5 * size) + b" " * (5 * size))
        answer = raw.answer()
        assert answer.status == 413 and answer.error()["code"] == "request_too_large"
        assert answer.headers["connection"] == "close"
        assert raw.is_closed()
    assert time.monotonic() - started < MOST_SECONDS


@pytest.mark.usefixtures("beside")
def test_three_million_chunks_of_a_byte_are_a_body(server: Server) -> None:
    body = _body(user="x" * 3_000_000)
    chunked = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with Raw(server, 20) as raw:
        raw.send(CHUNKED + chunked)
        assert raw.answer().status == 200
        raw.answers_on()


@pytest.mark.parametrize("length", [2, 9000])
def test_a_length_that_lies(server: Server, length: int) -> None:
    """What is too short is no JSON, and its rest no HTTP; for what is missing the server waits."""
    with Raw(server, 0.5) as raw:
        raw.send(POST + b"Content-Length: %d\r\n\r\n" % length + _body())
        if length > 1000:
            with pytest.raises(TimeoutError):
                raw.answer()
            return
        assert raw.answer().error()["code"] is None
        assert raw.answer().error()["code"] == "malformed_request"
        assert raw.is_closed()


def test_http_1_0_is_answered_and_closed(server: Server) -> None:
    with Raw(server) as raw:
        raw.send(
            posted(_body()).replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: 127.0.0.1\r\n", b"")
        )
        answer = raw.answer()
        assert answer.status == 200 and answer.headers["connection"] == "close"
        assert raw.is_closed()


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    """A slow one first, and nonsense last."""
    slow = _body(model="slow", messages=[{"role": "user", "content": "x" * 20}])
    words = ["a", "bb", "ccc"]
    quick = [posted(_body(messages=[{"role": "user", "content": word}])) for word in words]
    with Raw(server) as raw:
        raw.send(posted(slow) + b"".join(quick) + b"nonsense")
        answers = [raw.answer() for _ in range(4)]
        heard = [json.loads(answer.body)["choices"][0]["message"]["content"] for answer in answers]
        assert heard == ["x" * 20, *words]
        assert raw.answer().error()["code"] == "malformed_request"
        assert raw.is_closed()


def test_too_many_pipelined_requests_are_refused_after_their_answers(server: Server) -> None:
    slow = _body(model="slow", messages=[{"role": "user", "content": "x" * 20}])
    with Raw(server) as raw:
        raw.send(posted(slow) + (GET + b"\r\n") * 5000)
        assert [raw.answer().status for _ in range(MAX_PIPELINED + 1)] == [200] * (
            MAX_PIPELINED + 1
        )
        assert str(MAX_PIPELINED) in raw.answer().error()["message"]
        assert raw.is_closed()


def test_who_leaves_with_requests_in_line_leaves_nothing_running(server: Server) -> None:
    slow = posted(_body(model="slow", messages=[{"role": "user", "content": "x" * 900}]))
    with Raw(server) as raw:
        raw.send(slow + slow)
        _until_running(server, 1)
    _until_running(server, 0)


def _until_running(server: Server, number: int) -> None:
    deadline = time.monotonic() + 5
    while server.metric("ingle_requests_running", "slow") != number:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"PROPFIND /livez", 405),
        (b"DELETE /v1/models", 405),
        (b"TRACE /livez", 405),
        (b"OPTIONS *", 404),
        (b"GET http://127.0.0.1/livez", 200),
        (b"GET //evil/livez", 404),
        (b"GET /livez?a=%ff&\x7f", 400),
        (b"GET /%00%ff", 404),
        (b"GET /livez#part", 200),
        (b"GET /v1/../livez", 404),
    ],
)
def test_methods_and_targets_of_all_kinds(server: Server, request_line: bytes, status: int) -> None:
    with Raw(server) as raw:
        raw.send(request_line + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert raw.answer().status == status


def test_who_waits_to_be_asked_for_a_body_is_asked_or_refused(server: Server) -> None:
    request = posted(_body(), "Expect: 100-continue")
    head, body = request.split(b"\r\n\r\n")
    with Raw(server) as raw:
        for _ in range(2):
            raw.send(head + b"\r\n\r\n")
            assert raw.answer().status == 100
            raw.send(body)
            assert raw.answer().status == 200
        raw.send(head.replace(b"application/json", b"text/plain") + b"\r\n\r\n")
        answer = raw.answer()
        assert answer.status == 400 and answer.headers["connection"] == "close"
        assert raw.is_closed()


@pytest.mark.parametrize("piece", [1, 7])
def test_an_upgrade_is_declined_however_it_is_cut(server: Server, piece: int) -> None:
    request = posted(_body(), "Connection: Upgrade", "Upgrade: h2c", "Upgrading: no")
    with Raw(server) as raw:
        for i in range(0, len(request), piece):
            raw.send(request[i : i + piece])
            time.sleep(0.0005)
        assert raw.answer().status == 200
        raw.answers_on()


def test_hundreds_of_all_that_leave_nothing_behind(server: Server) -> None:
    everything = [*NO_HTTP.values(), *TOO_LARGE.values(), *(posted(b[0]) for b in BODIES.values())]

    def once() -> None:
        for data in everything:
            with Raw(server) as raw:
                raw.send(data)
                assert raw.answer().status in (400, 431)

    api = psutil.Process(server.process.pid)
    once()
    files, before = api.num_fds(), api.memory_info().rss
    for _ in range(4):
        once()
    assert api.memory_info().rss - before < 10 << 20
    assert api.num_fds() <= files + 2
    assert server.metric("ingle_engine_restarts_total") == 0


def test_what_never_became_a_request_is_counted_and_told(server: Server) -> None:
    def counted() -> dict[str, float]:
        start = 'ingle_http_requests_total{model_name="",route="connection",status="'
        lines = [line for line in server.metrics().splitlines() if line.startswith(start)]
        return {line[len(start) :][:3]: float(line.split()[-1]) for line in lines}

    before = counted()
    for sent in (b"nonsense\r\n\r\n", GET + b"x: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n"):
        with Raw(server) as raw:
            raw.send(sent)
            raw.answer()
    after = counted()
    assert {s: after[s] - before.get(s, 0) for s in ("400", "431")} == {"400": 1, "431": 1}
    told = [json.loads(line) for line in server.log().splitlines() if '"refused"' in line][-2:]
    assert [(line["status"], line["error"]) for line in told] == [
        (400, "malformed_request"),
        (431, "headers_too_large"),
    ]
