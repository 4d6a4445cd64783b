"""What dies, leaves, overflows or is told to stop, and what everybody else notices of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import psutil
import pytest

from .conftest import Server, Start, until

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
LONG = "these are many words that take the slow engine quite some time to say again " * 4
"""At 50 tokens a second 6 s: nothing here ends by itself."""


def _ask(text: str = LONG, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "echo", "messages": messages, "temperature": 0, **more}


def _complete(text: str = LONG, **more: Any) -> dict[str, Any]:
    prompt = f"<|turn|>user\n{text}<|end|><|turn|>assistant\n"
    return {"model": "echo", "prompt": prompt, "temperature": 0, "max_tokens": -1, **more}


BODIES = {CHAT: _ask(), COMPLETIONS: _complete()}


@contextlib.contextmanager
def _posted(server: Server, body: dict[str, Any], path: str = CHAT) -> Iterator[socket.socket]:
    """A request on a bare socket, which the client can drop as clients do."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        yield raw


def _text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slots(start: Start, path: str, stream: bool) -> None:
    server = start("echo=echo:rate=50")
    with _posted(server, BODIES[path] | {"stream": stream, "n": 2}, path) as raw:
        until(lambda: server.metric("ingle_requests_running") == 2)
        if stream:
            assert b"200 OK" in raw.recv(4096)
    until(lambda: server.metric("ingle_requests_running") == 0, 2)
    until(lambda: server.outcomes().get("cancelled") == 1, 2)
    assert server.metric("ingle_generated_tokens_total") < len(LONG)


def test_a_client_that_leaves_the_queue_is_forgotten(start: Start) -> None:
    server = start("echo=echo:rate=50", slots=1)
    with _posted(server, _ask(stream=True)):
        until(lambda: server.metric("ingle_requests_running") == 1)
        with _posted(server, _ask("other words")):
            until(lambda: server.metric("ingle_requests_waiting") == 1)
        until(lambda: server.metric("ingle_requests_waiting") == 0, 2)
        assert server.metric("ingle_requests_running") == 1


def _kill_twice(server: Server, model: str = "echo") -> None:
    """Its only engine, and then the one that goes on with all that that one held."""
    running = server.metric("ingle_requests_running", model)
    server.engines()[0].kill()
    until(lambda: server.metric("ingle_engine_restarts_total", model) == 1)
    until(lambda: server.metric("ingle_requests_running", model) == running)
    if running > 1:
        steps = server.metric("ingle_step_seconds_count", model) + 10
        until(lambda: server.metric("ingle_step_seconds_count", model) > steps)
    server.engines()[0].kill()
    until(lambda: server.metric("ingle_engine_restarts_total", model) == 2)
    until(lambda: httpx2.get(server.base + "/readyz").status_code == 200)


def test_a_killed_engine_costs_nothing_but_a_pause(start: Start) -> None:
    server = start("echo=echo:rate=50,load=0.5")
    (engine,) = server.engines()
    readiness: list[int] = []
    killed, watched = threading.Event(), threading.Event()

    def watch() -> None:
        """Every readiness there was, until it is back."""
        with httpx2.Client(base_url=server.base) as client:
            while not killed.is_set() or readiness[-1] != 200 or 503 not in readiness:
                readiness.append(client.get("/readyz").status_code)
        watched.set()

    with server.client() as client:
        raw = httpx2.Client(base_url=server.base, timeout=20)
        with raw, raw.stream("POST", CHAT, json=_ask("also " + LONG, stream=True)) as response:
            stream = client.chat.completions.create(**_ask(stream=True))
            heard = [next(stream), next(stream), next(stream)]
            threading.Thread(target=watch, daemon=True).start()
            until(lambda: bool(readiness))
            engine.kill()
            killed.set()
            heard += stream
            frames = [f[6:] for f in response.read().decode().split("\n\n") if f[:5] == "data:"]
        assert _text(heard) == LONG and heard[-1].choices[0].finish_reason == "stop"
        chunks = [json.loads(frame) for frame in frames[:-1]]
        said = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
        assert (said, frames[-1]) == ("also " + LONG, "[DONE]")
        assert watched.wait(10), readiness
        assert {*readiness} == {200, 503}
    assert server.process.poll() is None
    assert server.metric("ingle_engine_restarts_total") == 1
    assert server.outcomes() == {"stop": 2}
    assert [process.pid for process in server.engines()] != [engine.pid]


def test_what_two_engines_ended_with_is_ended_with_an_error(start: Start) -> None:
    server = start("echo=echo:rate=50")
    with server.client() as client:
        raw = httpx2.Client(base_url=server.base, timeout=20)
        with raw, raw.stream("POST", CHAT, json=_ask("also " + LONG, stream=True)) as response:
            stream = client.chat.completions.create(**_ask(stream=True))
            heard = [next(stream), next(stream), next(stream)]
            _kill_twice(server)
            with pytest.raises(openai.APIError) as died:
                heard += stream
            frames = response.read().decode().split("\n\n")
        assert not isinstance(died.value, openai.APIStatusError | openai.APIConnectionError)
        assert "engine" in died.value.message
        assert LONG.startswith(_text(heard)) and _text(heard)
        assert json.loads(frames[-3][6:])["error"]["code"] == "engine_error"
        assert frames[-2:] == ["data: [DONE]", ""]
        assert client.chat.completions.create(**_ask("again")).choices[0].message.content == "again"
    assert server.outcomes()["error"] == 2


@pytest.mark.parametrize("path", [*BODIES, "/v1/embeddings"])
def test_an_answer_that_cannot_go_on_is_an_error_whole_and_in_every_stream(
    start: Start, path: str
) -> None:
    waits = "vec" if path == "/v1/embeddings" else "echo"
    server = start("vec=echo:embed,tokens=100" if waits == "vec" else "echo=echo:rate=50")
    vectors = {"model": "vec", "input": ["many words " * 20] * 8}
    answers: dict[bool, httpx2.Response] = {}

    def post(stream: bool) -> None:
        body = BODIES.get(path, vectors) | {"stream": stream, "n": 2}
        answers[stream] = httpx2.post(server.base + path, json=body, timeout=30)

    streams = [False, True] if path in BODIES else [False]
    threads = [threading.Thread(target=post, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    until(lambda: server.metric("ingle_requests_running", waits) >= len(streams))
    _kill_twice(server, waits)
    for thread in threads:
        thread.join(20)
    error = answers[False].json()["error"]
    assert (answers[False].status_code, error["code"]) == (500, "engine_error")
    assert (error["type"], error["param"]) == ("server_error", None)
    if path in BODIES:
        *_, last, done, end = answers[True].text.split("\n\n")
        assert json.loads(last.removeprefix("data: ")) == {"error": error}
        assert (done, end) == ("data: [DONE]", "")


def test_the_sdk_raises_when_a_completion_breaks_off(start: Start) -> None:
    server = start("echo=echo:rate=50")
    with server.client() as client:
        stream = client.completions.create(**_complete(), stream=True)
        next(stream)
        _kill_twice(server)
        with pytest.raises(openai.APIError) as died:
            list(stream)
    assert not isinstance(died.value, openai.APIStatusError | openai.APIConnectionError)
    assert died.value.code == "engine_error"


def test_a_request_while_the_engine_restarts_is_told_to_come_back(start: Start) -> None:
    server = start("echo=echo:load=1")
    server.engines()[0].kill()
    until(lambda: httpx2.get(server.base + "/readyz").status_code == 503)
    refused = httpx2.post(server.base + CHAT, json=_ask("Hi"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_loading")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    with openai.OpenAI(base_url=server.base + "/v1", api_key="none", max_retries=3) as patient:
        answer = patient.chat.completions.create(**_ask("Hi"))
    assert answer.choices[0].message.content == "Hi"


def test_one_models_engine_is_not_anothers(start: Start) -> None:
    server = start("a=echo:rate=50", "b=echo:rate=50")
    first, second = server.engines()
    with server.client() as client:
        streams = {m: client.chat.completions.create(**_ask(model=m, stream=True)) for m in "ab"}
        for stream in streams.values():
            next(stream)
        until(lambda: all(server.metric("ingle_requests_running", m) == 1 for m in "ab"))
        first.kill()
        assert [_text(list(stream)) for stream in streams.values()] == [LONG, LONG]
    assert second.is_running()
    restarts = [server.metric("ingle_engine_restarts_total", model) for model in "ab"]
    assert sorted(restarts) == [0, 1]


def test_a_killed_server_leaves_no_engine(start: Start) -> None:
    server = start("echo=echo:rate=50", "other=echo:")
    engines = server.engines()
    assert len(engines) == 2
    with _posted(server, _ask(stream=True)) as raw:
        assert b"200 OK" in raw.recv(4096)
        server.process.kill()
        _, alive = psutil.wait_procs(engines, timeout=2)
    assert not alive
    assert server.process.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize("whole_group", [False, True])
def test_a_server_told_to_stop_lets_a_stream_finish(start: Start, whole_group: bool) -> None:
    """systemd and terminals send the signal to the engines too."""
    text = "a few words take about two seconds, surely longer than a signal"
    server = start("echo=echo:rate=40")
    with server.client() as client:
        stream = client.chat.completions.create(**_ask(text, stream=True))
        heard = [next(stream), next(stream)]
        if whole_group:
            os.killpg(server.process.pid, signal.SIGTERM)
        else:
            server.process.send_signal(signal.SIGTERM)
        heard += stream
    assert _text(heard) == text
    assert heard[-1].choices[0].finish_reason == "stop"
    assert server.stop() == 0


def test_a_server_told_to_stop_ends_what_it_took_and_takes_nothing_new(start: Start) -> None:
    text = "these words take the slow engine a while"
    server = start("echo=echo:rate=30", slots=1)
    with server.client() as client, httpx2.Client(base_url=server.base) as kept_alive:
        stream = client.chat.completions.create(**_ask(text, stream=True))
        heard = [next(stream)]
        queued: list[Any] = []
        waiting = threading.Thread(
            target=lambda: queued.append(client.chat.completions.create(**_ask("queued")))
        )
        waiting.start()
        until(lambda: server.metric("ingle_requests_waiting") == 1)
        assert kept_alive.get("/readyz").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        until(lambda: kept_alive.get("/readyz").json() == {"status": "stopping"}, 1)
        assert kept_alive.get("/livez").status_code == 200
        assert kept_alive.get("/health").json()["error"]["code"] == "server_shutdown"
        refused = kept_alive.post(CHAT, json=_ask("too late"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_shutdown")
        assert refused.headers["connection"] == "close" and int(refused.headers["retry-after"]) > 0
        heard += stream
        waiting.join(20)
    assert _text(heard) == text
    assert queued[0].choices[0].message.content == "queued"
    assert server.process.wait(10) == 0


def test_what_does_not_end_in_time_ends_with_an_error(start: Start) -> None:
    server = start("echo=echo:rate=20", drain_seconds=0.5)
    client = httpx2.Client(base_url=server.base, timeout=20)
    with client, client.stream("POST", CHAT, json=_ask(stream=True)) as response:
        until(lambda: server.metric("ingle_requests_running") == 1)
        server.process.send_signal(signal.SIGTERM)
        frames = response.read().decode().split("\n\n")
    assert json.loads(frames[-3][6:])["error"]["code"] == "server_shutdown"
    assert frames[-2:] == ["data: [DONE]", ""]
    assert server.process.wait(10) == 0


def test_an_idle_server_told_to_stop_stops_at_once(start: Start) -> None:
    server = start()
    with httpx2.Client(base_url=server.base) as kept_alive:
        assert kept_alive.get("/livez").status_code == 200
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(5) == 0


def test_a_second_signal_does_not_wait_for_streams(start: Start) -> None:
    server = start("echo=echo:rate=20")
    with _posted(server, _ask(stream=True)) as raw:
        assert b"200 OK" in raw.recv(4096)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: httpx2.get(server.base + "/readyz").status_code == 503)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 0


def test_a_key_is_required_where_one_is_set(start: Start) -> None:
    server = start(api_key="sk-right")
    with server.client(api_key="sk-right") as right, server.client(api_key="sk-wrong") as wrong:
        assert right.chat.completions.create(**_ask("Hi")).choices[0].message.content == "Hi"
        for stream in (False, True):
            with pytest.raises(openai.AuthenticationError) as refused:
                wrong.chat.completions.create(**_ask("Hi", stream=stream))
            assert refused.value.code == "invalid_api_key"
    post = {"url": server.base + CHAT, "json": _ask("Hi")}
    assert httpx2.post(**post, headers={"x-api-key": "sk-right"}).status_code == 200
    missing = httpx2.post(**post)
    assert missing.status_code == 401
    assert set(missing.json()["error"]) == {"message", "type", "param", "code"}
    assert httpx2.get(server.base + "/health").status_code == 200
    assert httpx2.get(server.base + "/metrics").status_code == 401


async def test_one_too_many_is_refused_at_once_and_the_others_are_not_hurt(start: Start) -> None:
    server = start("echo=echo:rate=50", slots=2, max_waiting=0)
    async with server.async_client() as client, asyncio.timeout(30):
        streams = [
            await client.chat.completions.create(**_ask(stream=True, max_tokens=60))
            for _ in range(2)
        ]
        with pytest.raises(openai.InternalServerError) as refused:
            await client.chat.completions.create(**_ask("one too many"))
        assert (refused.value.status_code, refused.value.code) == (503, "server_overloaded")
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
        health = await client.with_options(base_url=server.base).get("/livez", cast_to=object)
        assert health
        for stream in streams:
            assert _text([chunk async for chunk in stream]) == LONG[:60]
        answer = await client.chat.completions.create(**_ask("room again", max_tokens=4))
        assert answer.choices[0].message.content == "room"
