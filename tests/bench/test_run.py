"""The clients against a small HTTP server that answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.bench.cases import Session, Workload
from server.bench.client import first_model
from server.bench.http import Endpoint
from server.bench.run import Server
from server.core.errors import ConfigError

Reply = Callable[[dict[str, Any], asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
USAGE = {"prompt_tokens": 10, "completion_tokens": 3}


def frame(**chunk: Any) -> bytes:
    event = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


def content(text: str) -> bytes:
    return frame(choices=[{"delta": {"content": text}}])


@asynccontextmanager
async def fake(reply: Reply) -> AsyncIterator[Server]:
    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(length) or b"{}")
        await reply(body, writer)
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield Server(Endpoint.parse(f"http://127.0.0.1:{port}/v1"), "m")


def run(reply: Reply, workload: Workload) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(20), fake(reply) as server:
            return await server.run(workload)

    return asyncio.run(main())


async def hello(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    assert body["stream"] and body["stream_options"] == {"include_usage": True}
    writer.write(HEAD + frame(choices=[{"delta": {"role": "assistant", "content": None}}]))
    writer.write(content("hel"))
    await writer.drain()
    last = frame(choices=[{"delta": {}, "finish_reason": "stop"}]) + frame(choices=[], usage=USAGE)
    writer.write(content(f"lo {len(body['messages'])}") + last + b"0\r\n\r\n")


def test_a_conversation_carries_what_was_said() -> None:
    outcome = run(hello, Workload("x", 1, (Session(("a", "b"), 4, system="s"),)))
    assert [answer.text for answer in outcome.answers] == ["hello 2", "hello 4"]
    first = outcome.answers[0]
    assert (first.error, first.finish_reason) == (None, "stop")
    assert first.usage is not None and first.usage.completion_tokens == 3
    assert first.started < first.chunks[0] <= first.chunks[-1] <= first.ended


def test_a_refusal_ends_the_conversation_and_is_told() -> None:
    async def refuse(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        body = b'{"error": {"message": "not supported"}}'
        writer.write(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    outcome = run(refuse, Workload("x", 1, (Session(("a", "b"), 4),)))
    assert [answer.error for answer in outcome.answers] == ["400 not supported"]


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (b"", "the answer was cut short"),
        (b"0\r\n\r\n", "the server sent no usage block"),
        (frame(error={"message": "the engine died"}) + b"0\r\n\r\n", "the engine died"),
    ],
)
def test_a_stream_that_ends_badly_is_an_error(last: bytes, error: str) -> None:
    async def reply(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + content("a") + last)

    (answer,) = run(reply, Workload("x", 1, (Session(("a",), 4),))).answers
    assert (answer.error, len(answer.chunks)) == (error, 1)


def test_intruders_come_once_every_stream_runs() -> None:
    intruded = asyncio.Event()
    begun: list[str] = []

    async def reply(body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        said = body["messages"][-1]["content"]
        begun.append(said)
        writer.write(HEAD)
        for _ in range(2):
            writer.write(content("a"))
            await writer.drain()
            await asyncio.sleep(0.02)
        if said == "intruder":
            intruded.set()
        await intruded.wait()
        writer.write(content("b") + frame(choices=[], usage=USAGE) + b"0\r\n\r\n")

    streams = tuple(Session((f"stream {i}",), 4) for i in range(3))
    outcome = run(reply, Workload("x", 3, streams, (Session(("intruder",), 4),), intrude_after=2))
    assert begun[-1] == "intruder"
    assert len(outcome.intruders) == 1
    assert all(answer.chunks[1] <= outcome.arrived for answer in outcome.answers)
    assert all(answer.chunks[-1] > outcome.arrived for answer in outcome.answers)


def test_no_server_is_one_clear_error() -> None:
    async def main() -> None:
        async with fake(hello) as server:
            pass
        await first_model(server.endpoint)

    with pytest.raises(ConfigError, match=r"connection refused.*start one with `ingle serve`"):
        asyncio.run(main())
