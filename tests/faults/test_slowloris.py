"""Clients that send slowly, or nothing, hold what they hold for a bounded time, and nobody up."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

import httpx2
import psutil
import pytest

from server.api.connection import BODY_SECONDS, HEAD_SECONDS, IDLE_SECONDS, SLOWEST_LINK
from tests.e2e.conftest import Server, Start, until

from .raw import HI, Neighbour, Raw, posted

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

HURRY = 0.1
"""The deadlines are a tenth of what they are; the server looks once a second."""
HEAD, BODY, IDLE = (HURRY * seconds for seconds in (HEAD_SECONDS, BODY_SECONDS, IDLE_SECONDS))
SLACK = 2.5
LIVE = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HALF_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-"
HALF_BODY = posted(b'{"model": "echo"' + b" " * 500)[:-100]


@contextlib.contextmanager
def _many(server: Server, count: int, data: bytes) -> Iterator[list[Raw]]:
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            opened.append(stack.enter_context(Raw(server, 30)))
            opened[-1].send(data)
        yield opened


def test_half_a_request_is_waited_for_and_no_longer(start: Start) -> None:
    """200 half heads, 200 half bodies and 1 000 idle connections, and a client among them."""
    server = start("echo=echo:", "slow=echo:rate=100", f"hurry={HURRY}")
    api = psutil.Process(server.process.pid)
    before = api.memory_info().rss
    with (
        _many(server, 1000, LIVE) as idle,
        _many(server, 200, HALF_HEAD) as heads,
        _many(server, 200, HALF_BODY) as bodies,
    ):
        started = time.monotonic()
        for raw in idle:
            assert raw.answer().status == 200
        assert api.memory_info().rss - before < 40 << 20
        for _ in range(3):
            with Neighbour(server, "slow").beside(0.25):
                pass
        for half, seconds in ((heads, HEAD), (bodies, BODY)):
            for raw in half:
                answer = raw.answer()
                assert answer.status == 408 and answer.error()["code"] == "request_timeout"
                assert answer.headers["connection"] == "close" and raw.is_closed()
            assert time.monotonic() - started < seconds + SLACK
        assert time.monotonic() - started > BODY
        for raw in idle[:10]:
            raw.answers_on()
    until(lambda: len(api.net_connections()) <= 3)


def test_what_drips_is_not_waited_for_and_what_flows_is(start: Start) -> None:
    """A deadline for all of a body, and yet a large one may take its time."""
    server = start("echo=echo:", f"hurry={HURRY}", max_waiting_tokens=1_000_000)
    body = posted(b'{"user": "' + b"x" * 200_000 + b'"}')
    seconds = 2 * BODY
    assert 200_000 / seconds > SLOWEST_LINK
    with Raw(server) as drips, Raw(server) as flows:
        drips.send(body[:1000])
        started = time.monotonic()
        sent, dripped = 0, 0
        while sent < len(body):
            due = int(len(body) * (time.monotonic() - started) / seconds) + 1
            flows.send(body[sent:due])
            drips.send(body[1000 + dripped : 1001 + dripped])
            sent, dripped = due, dripped + 1
            time.sleep(0.05)
        drips.socket.settimeout(0.1)
        assert drips.answer().status == 408 and drips.is_closed()
        assert flows.answer().error()["param"] == "messages"


def test_idle_connections_are_closed_in_the_end(start: Start) -> None:
    """One that never said anything, one that was answered, one that says nothing but line ends."""
    server = start("echo=echo:", "hurry=0.02")
    with Raw(server) as silent, Raw(server) as answered, Raw(server) as blank:
        answered.answers_on()
        started = time.monotonic()
        for _ in range(3):
            blank.send(b"\r\n")
            time.sleep(0.3)
        assert silent.is_closed() and answered.is_closed() and blank.is_closed()
        assert time.monotonic() - started < 0.02 * IDLE_SECONDS + SLACK


def test_an_answer_may_take_longer_than_any_of_this(start: Start) -> None:
    server = start("slow=echo:rate=10", "hurry=0.01")
    text = "x" * 25
    with Raw(server) as raw:
        body = f'{{"messages": [{{"role": "user", "content": "{text}"}}], "temperature": 0}}'
        raw.send(posted(body.encode()))
        assert text.encode() in raw.answer().body


def test_who_refuses_to_read_a_long_answer_is_left(start: Start) -> None:
    server = start("embed=echo:embed", "echo=echo:", f"hurry={HURRY}")
    inputs = ", ".join(['"word"'] * 2000)
    with Raw(server) as deaf:
        for _ in range(20):
            deaf.send(
                posted(f'{{"model": "embed", "input": [{inputs}]}}'.encode(), path="/v1/embeddings")
            )
        api = psutil.Process(server.process.pid)
        until(lambda: len(api.net_connections()) == 2)
        until(lambda: len(api.net_connections()) == 1, 20)


def test_where_files_run_out_idle_connections_make_room(start: Start) -> None:
    """Those idle for longest go; where none is idle, the newest is refused. An engine may die."""
    server = start("echo=echo:", "files=200")
    api = psutil.Process(server.process.pid)
    with _many(server, 300, LIVE) as idle:
        assert [raw.answer().status for raw in idle[-50:]] == [200] * 50
        assert api.num_fds() < 200
        assert idle[0].answer().status == 200 and idle[0].is_closed()
        idle[-1].answers_on()
        with _many(server, 100, HALF_HEAD) as busy:
            refused = busy[-1].answer()
            assert refused.status == 503 and refused.error()["code"] == "server_overloaded"
            assert int(refused.headers["retry-after"]) >= 1
            spent = api.cpu_times()
            time.sleep(0.5)
            assert api.cpu_times().user - spent.user < 0.2, "it spins"
            server.engines()[0].kill()
        until(lambda: server.metric("ingle_engine_restarts_total") == 1)
        until(lambda: httpx2.get(f"{server.base}/readyz").status_code == 200)
        with server.client() as client:
            answer = client.chat.completions.create(**HI)
            assert answer.choices[0].message.content == "Hi"


def test_a_server_that_is_told_to_stop_waits_for_no_body(start: Start) -> None:
    """Nobody can say when it would come; its client hears why, and an answer goes on to its end."""
    server = start("echo=echo:rate=50", drain_seconds=60)
    messages = [{"role": "user", "content": "many words " * 8}]
    ask = {"model": "echo", "messages": messages, "stream": True, "temperature": 0}
    with (
        _many(server, 20, HALF_BODY) as halves,
        server.client() as client,
        client.chat.completions.create(**ask) as stream,
    ):
        chunks = iter(stream)
        heard = [next(chunks).choices[0].delta.content]
        until(lambda: len(httpx2.get(f"{server.base}/admin/requests").json()["data"]) == 21)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        for half in halves:
            answer = half.answer()
            assert (answer.status, answer.error()["code"]) == (503, "server_shutdown")
        assert time.monotonic() - began < 1.5
        heard += [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(filter(None, heard)) == "many words " * 8
    assert server.process.wait(10) == 0
    assert time.monotonic() - began < 10
