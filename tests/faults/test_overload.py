"""More than the server can take: what it takes is served, the rest hears when to come back."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter

import httpx2
import openai
import pytest

from tests.e2e.conftest import Server, Start, until

from .burst import Reply, burst, chat

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PLACES = {"slots": 4, "max_waiting": 16}


def _refused(server: Server) -> dict[str, float]:
    lines = httpx2.get(f"{server.base}/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("ingle_requests_refused_total")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


def _said(reply: Reply) -> str:
    return str(reply.json["choices"][0]["message"]["content"])


def _check_refusal(reply: Reply) -> None:
    assert reply.json["error"]["code"] == "server_overloaded"
    seconds, milliseconds = (int(reply.headers[f"retry-after{of}"]) for of in ("", "-ms"))
    assert 1 <= seconds <= 30 and (seconds - 1) * 1000 < milliseconds <= max(seconds * 1000, 1000)


def test_of_200_at_once_20_are_served_and_180_sent_away(start: Start) -> None:
    server = start("echo=echo:rate=100", **PLACES)
    texts = [f"{number} knocks" for number in range(200)]
    replies = burst(server.port, [chat(text) for text in texts])
    assert Counter(reply.status for reply in replies) == {200: 20, 503: 180}
    for text, reply in zip(texts, replies, strict=True):
        if reply.status == 200:
            assert _said(reply) == text
        else:
            _check_refusal(reply)
    spread = {reply.headers["retry-after-ms"] for reply in replies if reply.status == 503}
    assert len(spread) > 90, "they would come back together"
    read = sum(reply.json["usage"]["prompt_tokens"] for reply in replies if reply.status == 200)
    assert server.metric("ingle_prompt_tokens_total") == read, "a refused one was tokenised"
    assert _refused(server)["requests"] == 180
    assert server.outcomes() == {"stop": 20}
    assert server.metric("ingle_requests_running") == server.metric("ingle_requests_waiting") == 0
    assert _said(burst(server.port, [chat("and now?")])[0]) == "and now?"


def test_long_prompts_are_sent_away_while_short_ones_come_in(start: Start) -> None:
    server = start("echo=echo:prefill=3000", max_waiting_tokens=4500, ctx=8192, **PLACES)
    long = [f"{number} " + "long " * 800 for number in range(8)]
    short = [f"{number} short" for number in range(8)]
    replies = burst(server.port, [chat(text, max_tokens=9) for text in long + short])
    of_long, of_short = replies[:8], replies[8:]
    assert [_said(reply) for reply in of_short] == short
    statuses = Counter(reply.status for reply in of_long)
    assert set(statuses) == {200, 503} and 1 <= statuses[200] <= 4
    for text, reply in zip(long, of_long, strict=True):
        if reply.status == 200:
            assert _said(reply) == text[:9]
        else:
            _check_refusal(reply)
    assert _refused(server) | {"tokens": 0} == dict.fromkeys(_refused(server), 0)
    until(lambda: "ingle_waiting_prompt_tokens 0.0" in httpx2.get(f"{server.base}/metrics").text)
    assert burst(server.port, [chat(long[0], max_tokens=9)])[0].status == 200


async def _patient(server: Server, number: int) -> tuple[str, int]:
    """What it was told in the end, and after how many refusals."""
    base = f"{server.base}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=5) as client:
        answer = await client.chat.completions.with_raw_response.create(
            model="echo", messages=[{"role": "user", "content": f"{number} waits"}], temperature=0
        )
    return answer.parse().choices[0].message.content or "", answer.retries_taken


@pytest.mark.anyio
async def test_the_sdk_gets_everybody_in_when_told_when_to_come_back(start: Start) -> None:
    server = start("echo=echo:rate=100", slots=4, max_waiting=6)
    told = await asyncio.gather(*(_patient(server, number) for number in range(40)))
    assert [text for text, _ in told] == [f"{number} waits" for number in range(40)]
    retries = [taken for _, taken in told]
    assert retries.count(0) >= 10 and sum(retries) >= 30
    assert sum(retries) < 120, "they came back in vain"


def _fill(server: Server) -> socket.socket:
    """Takes the only place there is."""
    conn = socket.create_connection(("127.0.0.1", server.port))
    conn.sendall(chat("x" * 200, stream=True))
    assert b"200 OK" in conn.recv(64)
    return conn


def test_who_is_still_sending_hears_the_refusal(start: Start) -> None:
    """16 MiB do not fit in the buffers between: a server that just closed would reset the
    connection, and the refusal with it. After small requests it may go on."""
    server = start("echo=echo:rate=10", slots=1, max_waiting=0)
    large = chat("x" * (16 << 20))
    with _fill(server), socket.create_connection(("127.0.0.1", server.port)) as conn:
        for request in (chat("again"), chat("and again"), large):
            conn.settimeout(20)
            conn.sendall(request)
            reply = b""
            while b"server_overloaded" not in reply:
                data = conn.recv(4096)
                assert data, "closed without a word"
                reply += data
            assert reply.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in reply


def test_a_slot_is_waited_for_only_so_long(start: Start) -> None:
    server = start("echo=echo:rate=10", slots=1, queue_seconds=0.5)
    hi = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
    with _fill(server), server.client() as client:
        with pytest.raises(openai.InternalServerError) as late:
            client.chat.completions.create(**hi)
        assert (late.value.status_code, late.value.code) == (503, "server_overloaded")
        assert late.value.response.headers["x-queue-position"] == "1"
        with pytest.raises(openai.APIError, match=r"no slot came free within 0\.5 s"):
            list(client.chat.completions.create(**hi, stream=True))
        assert _refused(server)["queue_seconds"] == 2
        until(lambda: server.metric("ingle_requests_waiting") == 0)
    until(lambda: server.metric("ingle_requests_running") == 0)
    with server.client() as client:
        assert client.chat.completions.create(**hi).choices[0].message.content == "hi"


def test_an_answer_may_take_only_so_long_and_is_not_asked_for_again(start: Start) -> None:
    server = start("echo=echo:rate=10", slots=1, request_seconds=0.7)
    long = {"model": "echo", "messages": [{"role": "user", "content": "x" * 60}], "temperature": 0}
    with server.client() as client, client.with_options(max_retries=3) as stubborn:
        with pytest.raises(openai.InternalServerError) as late:
            stubborn.chat.completions.create(**long)
        assert (late.value.status_code, late.value.code) == (504, "timeout")
        heard = []
        with pytest.raises(openai.APIError) as cut:
            for chunk in client.chat.completions.create(**long, stream=True):
                heard.append(chunk.choices[0].delta.content or "")
        assert cut.value.code == "timeout" and 2 <= len("".join(heard)) <= 8
    until(lambda: server.metric("ingle_requests_running") == 0)
    assert server.outcomes()["error"] == 2, "one try each"


def test_a_key_has_its_own_quota(start: Start) -> None:
    server = start("echo=echo:rate=20", api_key="ka,kb", key_max_requests=1)
    hi = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
    long = hi | {"messages": [{"role": "user", "content": "x" * 400}]}
    with server.client(api_key="ka") as ada, server.client(api_key="kb") as bob:
        stream = ada.chat.completions.create(**long, stream=True)
        assert stream.response.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as limited:
            ada.chat.completions.create(**hi)
        assert (limited.value.code, limited.value.type) == ("rate_limit_exceeded", "requests")
        assert bob.chat.completions.create(**hi).choices[0].message.content == "hi"
        stream.close()
        until(lambda: _may(ada, hi))


def _may(client: openai.OpenAI, body: dict[str, object]) -> bool:
    try:
        return bool(client.chat.completions.create(**body))
    except openai.RateLimitError:
        return False


def test_where_it_stands_in_the_queue_and_how_long_that_takes(start: Start) -> None:
    server = start("echo=echo:rate=40", slots=1)
    asked = chat("x" * 20)
    alone = burst(server.port, [asked])[0]
    assert "x-queue-position" not in alone.headers
    replies = burst(server.port, [asked] * 4)
    told = {
        int(reply.headers.get("x-queue-position", 0)): reply
        for reply in sorted(replies, key=lambda reply: reply.seconds)
    }
    assert sorted(told) == [0, 1, 2, 3]
    for position in (1, 2, 3):
        estimate = int(told[position].headers["x-queue-estimate-ms"]) / 1000
        assert estimate == pytest.approx(position * alone.seconds, rel=0.5)


def test_a_body_that_comes_in_pieces_is_counted_too(start: Start) -> None:
    server = start("echo=echo:prefill=2000", max_waiting_tokens=2000, ctx=8192, slots=4)
    body = json.dumps(
        {"model": "echo", "messages": [{"role": "user", "content": "long " * 1000}]}
    ).encode()
    first = asyncio.run(_chunked_behind(server, body))
    assert first == 503 and _refused(server)["tokens"] == 1


async def _chunked_behind(server: Server, body: bytes) -> int:
    """The status of a chunked body that comes while a long prompt is read."""

    async def pieces():  # type: ignore[no-untyped-def]
        for at in range(0, len(body), 500):
            yield body[at : at + 500]

    json_type = {"content-type": "application/json"}
    url = f"{server.base}/v1/chat/completions"
    async with httpx2.AsyncClient(timeout=30) as client:
        before = asyncio.create_task(client.post(url, content=body, headers=json_type))
        while (
            b"ingle_waiting_prompt_tokens 0.0"
            in (await client.get(f"{server.base}/metrics")).content
        ):
            await asyncio.sleep(0.01)
        refused = await client.post(url, content=pieces(), headers=json_type)
        assert (await before).status_code == 200
        return refused.status_code
