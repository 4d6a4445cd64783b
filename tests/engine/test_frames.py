"""Every message crosses the socketpair unchanged; what is no frame is refused."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.core.errors import ContextOverflow
from server.core.types import (
    Admitted,
    Embedded,
    EmbedRequest,
    Failed,
    Finished,
    GenerateRequest,
    SamplingParams,
    Started,
    TextPiece,
    TokenDelta,
    Tokenized,
    Usage,
)
from server.engine.frames import (
    MAX_FRAME,
    ApiPipe,
    Cancel,
    Command,
    Detokenize,
    Embed,
    EnginePipe,
    FrameError,
    Go,
    LoadFailed,
    Pause,
    Ready,
    Report,
    Start,
    StepFrame,
    Submit,
    Tokenize,
    encode,
)
from tests.fakes import model_info, step_stats

pytestmark = pytest.mark.anyio

COMMANDS: list[Command] = [
    Start(EngineConfig("a:B", RunnerConfig("m.gguf", slots=2), SchedulerConfig(50.0, 64))),
    Submit(
        GenerateRequest(
            "seq-1",
            (TextPiece("<|user|>"), TextPiece("🦊 \ue000 <|end|>", plain=True)),
            SamplingParams(temperature=0.5, seed=2**32 - 1, logit_bias={5: -100.0}),
            max_tokens=7,
            stop=("\n\n", "中"),
            scope="key",
        )
    ),
    Submit(GenerateRequest("seq-2", (TextPiece("x" * 300_000),))),
    Embed(EmbedRequest("e1", ("🦊", ""), query="q", field="documents", scope="key")),
    Embed(EmbedRequest("e2", tokens=((1, 2**31 - 1), (0,)), dimensions=8, alone=True)),
    Cancel("seq-1"),
    Pause("seq-1"),
    Go("seq-1"),
    Tokenize("tok-1", (TextPiece("<|user|>"), TextPiece("🦊", plain=True)), begin=True),
    Detokenize("tok-2", (0, 2**31 - 1)),
]
REPORTS: list[Report] = [
    Ready(model_info(sampling={"top_k": 40.0}, gpu="none")),
    LoadFailed("ModelFileError", "not a GGUF file"),
    StepFrame(
        (
            Admitted("seq-1", 12, 3),
            Started("seq-1"),
            TokenDelta("seq-1", "🦊", (1, 2)),
            TokenDelta("seq-2", "", ()),
            Embedded("e1", 2, b"\x00\x00\x80?" * 2),
            Finished("seq-1", "length", Usage(12, 3, 2), 0.25),
            Failed.of("seq-2", ContextOverflow.of(70, 64)),
        ),
        (step_stats(), step_stats()),
    ),
    StepFrame((Tokenized("tok-1", (1, 2), (b"\xf0", b"<|user|>")),)),
    StepFrame(()),
]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


async def test_commands_arrive_as_they_were_sent(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, engine = await ApiPipe.open(pair[0]), EnginePipe(pair[1])
    for command in COMMANDS:
        ours.send(command)
    for command in COMMANDS:
        assert await asyncio.to_thread(engine.receive) == command
    ours.close()
    assert await asyncio.to_thread(engine.receive) is None


async def test_reports_arrive_as_they_were_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, engine = await ApiPipe.open(pair[0]), EnginePipe(pair[1])
    for report in REPORTS:
        engine.send(report)
    assert [await ours.receive() for _ in REPORTS] == REPORTS
    pair[1].shutdown(socket.SHUT_RDWR)
    assert await ours.receive() is None
    ours.close()


async def test_two_threads_do_not_mix_their_frames(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, engine = await ApiPipe.open(pair[0]), EnginePipe(pair[1])
    long = [StepFrame((TokenDelta(name, name * 40_000, ()),)) for name in "ab"]
    threads = [
        threading.Thread(target=lambda report=report: [engine.send(report) for _ in range(20)])
        for report in long
    ]
    for thread in threads:
        thread.start()
    got = [await ours.receive() for _ in range(40)]
    assert [got.count(report) for report in long] == [20, 20]
    await asyncio.to_thread(lambda: [thread.join(5) for thread in threads])
    ours.close()


async def test_an_oversize_frame_is_refused_before_it_is_read(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, engine = await ApiPipe.open(pair[0]), EnginePipe(pair[1])
    header = (MAX_FRAME + 1).to_bytes(4, "big")
    pair[1].sendall(header)
    assert await ours.receive() is None
    pair[0].send(header)
    with pytest.raises(FrameError):
        await asyncio.to_thread(engine.receive)
    ours.close()


async def test_a_frame_cut_short_is_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours = await ApiPipe.open(pair[0])
    pair[1].sendall(encode(REPORTS[0])[:-1])
    pair[1].shutdown(socket.SHUT_WR)
    assert await ours.receive() is None
    ours.close()


async def test_nothing_is_sent_to_an_engine_that_is_gone(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours = await ApiPipe.open(pair[0])
    ours.close()
    ours.send(Cancel("late"))
