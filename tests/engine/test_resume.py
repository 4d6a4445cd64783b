"""An engine process ends in the middle: what it held goes on in the next one, told once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.core.errors import EngineError, ModelLoading
from server.core.types import (
    Admitted,
    Embedded,
    EmbedRequest,
    EngineEvent,
    Finished,
    GenerateRequest,
    PromptScored,
    SamplingParams,
    TextPiece,
    TokenDelta,
    TokenLogprob,
    Usage,
)
from server.engine.frames import StepFrame
from server.engine.process import EngineProcess
from tests.fakes import Recorder

from .asking import ask

pytestmark = pytest.mark.anyio

DEADLINE = 20.0
WATCHDOG = 1.0
SAID = 'On we go: zebras 🦊🦊 zany "zoo" and more of 漢字, to the end of it all, zzz.'
CARD = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "note": {"type": "string"}},
    "required": ["name", "note"],
    "additionalProperties": False,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scored": {"logprobs": 2},
    "held": {"stop": ("zoom", "🦊x")},
    "held and scored": {"stop": ("zoom", "z🦊"), "logprobs": 1},
    "seeded": {"sampling": SamplingParams(seed=5)},
    "grammar": {"grammar": f"start: %json {json.dumps(CARD)}"},
    "echoed": {"prompt_logprobs": True, "logprobs": 0},
    "short": {"max_tokens": 60},
    "at least": {"sampling": SamplingParams(temperature=0, min_tokens=60), "max_tokens": 120},
}


@contextlib.asynccontextmanager
async def started(
    stats: Recorder, path: str = "echo:rate=200", *, faults: str = "", draft: bool = True
) -> AsyncIterator[EngineProcess]:
    runner = "EchoEmbedder" if "embed" in path else "EchoRunner"
    module = "echo_embedder" if "embed" in path else "echo"
    config = EngineConfig(
        f"server.engine.{module}:{runner}",
        RunnerConfig(path, context=512, slots=4),
        SchedulerConfig(watchdog_seconds=WATCHDOG, draft=draft),
        faults,
    )
    engine = EngineProcess("echo", config, stats)
    async with asyncio.timeout(DEADLINE):
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop()


@dataclass
class Heard:
    """All that a client is told of one choice, however it came cut."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompts: list[PromptScored] = field(default_factory=list)
    admitted: int = 0
    end: str = ""
    usage: Usage = field(default_factory=lambda: Usage(0, 0, 0))

    def add(self, event: EngineEvent) -> None:
        if isinstance(event, TokenDelta):
            self.text += event.text
            self.tokens += event.tokens
            self.logprobs += event.logprobs
        elif isinstance(event, PromptScored):
            self.prompts.append(event)
        elif isinstance(event, Admitted):
            self.admitted += 1
        elif isinstance(event, Finished):
            self.end, self.usage = event.reason, event.usage


def end(engine: EngineProcess, number: int = signal.SIGKILL) -> None:
    assert engine.pid is not None
    os.kill(engine.pid, number)


async def hear(
    engine: EngineProcess, *requests: GenerateRequest, kill_after: int | None = None
) -> dict[str, Heard]:
    """Kills the engine once so many tokens were heard in all."""
    heard = {request.id: Heard() for request in requests}
    async for events in engine.generate(*requests):
        for event in events:
            heard[event.id].add(event)
        if kill_after is not None and sum(len(h.tokens) for h in heard.values()) >= kill_after:
            end(engine)
            kill_after = None
    assert kill_after is None, "it ended before it could be killed"
    return heard


@pytest.mark.parametrize("kill_after", [0, 1, 14, 30])
@pytest.mark.parametrize("variant", VARIANTS)
async def test_an_answer_goes_on_where_it_was(variant: str, kill_after: int) -> None:
    stats = Recorder()
    said = json.dumps({"name": "Ann", "note": SAID}) if variant == "grammar" else SAID
    async with started(stats) as engine:
        request = ask(said, "r", **VARIANTS[variant])
        whole = (await hear(engine, request))["r"]
        again = (await hear(engine, request, kill_after=kill_after))["r"]
    assert stats.restarts == ["SIGKILL"]
    assert (again.text, again.end, again.logprobs) == (whole.text, whole.end, whole.logprobs)
    assert again.admitted == 1 and len(again.prompts) == len(whole.prompts)
    assert again.usage.completion_tokens == whole.usage.completion_tokens
    if request.logprobs is None:
        assert again.tokens == whole.tokens, "a token lost, or told twice"


async def test_a_choice_that_has_ended_is_not_begun_again() -> None:
    """While others of its request go on."""
    stats = Recorder()
    ends: list[str] = []
    async with started(stats, draft=False) as engine:
        async for events in engine.generate(ask("short", "short"), ask(SAID, "long")):
            ends += [event.id for event in events if isinstance(event, Finished)]
            if ends and not stats.restarts and engine.ready:
                end(engine)
    assert ends == ["short", "long"]
    assert stats.restarts == ["SIGKILL"]


async def test_a_bug_while_answers_are_handed_out_costs_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody would hand out any more; that engine is ended, and the next one goes on."""
    stats, frames = Recorder(), 0
    async with started(stats) as engine:
        whole = (await hear(engine, ask(SAID, "r")))["r"]
        hand_out = engine._dispatch

        def broken(frame: StepFrame) -> None:
            nonlocal frames
            frames += 1
            if frames == 9:
                raise RuntimeError("nobody thought of this")
            hand_out(frame)

        monkeypatch.setattr(engine, "_dispatch", broken)
        again = (await hear(engine, ask(SAID, "r")))["r"]
        assert again.text.startswith(whole.text[:3]) and again.end == whole.end
    assert stats.restarts == ["SIGKILL"]


async def test_all_that_an_engine_held_goes_on() -> None:
    stats = Recorder()
    requests = [ask(f"{i} {SAID}", f"r{i}") for i in range(9)]
    async with started(stats) as engine:
        heard = await hear(engine, *requests, kill_after=100)
    assert [h.text for h in heard.values()] == [f"{i} {SAID}" for i in range(9)]
    assert stats.restarts == ["SIGKILL"]


async def test_a_request_at_two_crashes_is_ended_and_others_are_not() -> None:
    stats = Recorder()
    async with started(stats) as engine:
        first = asyncio.create_task(hear(engine, ask(SAID * 2, "first"), kill_after=10))
        while len(stats.loads) < 2:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(hear(engine, ask(SAID * 2, "second"), kill_after=10))
        with pytest.raises(EngineError, match="twice"):
            await first
        assert (await second)["second"].text == SAID * 2
    assert stats.restarts == ["SIGKILL"] * 2


async def test_a_client_that_leaves_meanwhile_is_forgotten() -> None:
    stats = Recorder()
    async with started(stats, "echo:rate=200,load=0.5") as engine:
        stream = engine.generate(ask(SAID))
        await anext(stream)
        end(engine)
        while engine.ready:
            await asyncio.sleep(0.005)
        await stream.aclose()
        with pytest.raises(ModelLoading):
            await anext(engine.generate(ask("too early")))
        while not engine.ready:
            await asyncio.sleep(0.01)
        steps = len(stats.steps)
        assert (await hear(engine, ask("short", "next")))["next"].text == "short"
    assert sum(step.running > 1 for step in stats.steps[steps:]) == 0


async def test_who_waits_for_a_slot_is_no_suspect() -> None:
    """However often those before it see their engine die."""
    stats = Recorder()
    async with started(stats, "echo:rate=40", draft=False) as engine:
        running = [asyncio.create_task(hear(engine, ask(f"{i} {SAID}", f"r{i}"))) for i in range(4)]
        while not (stats.steps and stats.steps[-1].running == 4):
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(hear(engine, ask(SAID, "w")))
        for deaths in (1, 2):
            done = len(stats.steps)
            while len(stats.steps) < done + 10 or (
                (stats.steps[-1].running, stats.steps[-1].waiting) != (4, 1)
            ):
                await asyncio.sleep(0.01)
            end(engine)
            while len(stats.restarts) < deaths:
                await asyncio.sleep(0.01)
        assert (await waiting)["w"].text == SAID
        ends = await asyncio.gather(*running, return_exceptions=True)
    assert [type(error) for error in ends] == [EngineError] * 4


async def test_one_that_ends_every_process_is_found_among_its_neighbours() -> None:
    stats = Recorder()
    async with started(stats, faults="abort@word=poison,start=1..") as engine:
        beside = [asyncio.create_task(hear(engine, ask(SAID, f"b{i}"))) for i in range(3)]
        while not (stats.steps and stats.steps[-1].running == 3):
            await asyncio.sleep(0.01)
        with pytest.raises(EngineError, match="twice"):
            await hear(engine, ask("poison", "p"))
        heard = [next(iter((await task).values())) for task in beside]
    assert [one.text for one in heard] == [SAID] * 3
    assert stats.restarts == ["SIGABRT"] * 2


async def test_a_suspect_that_leaves_makes_room_for_the_next() -> None:
    """In the second process the first step, which is the first suspect's alone, takes long."""
    stats = Recorder()
    async with started(stats, faults="sleep=700@step=1,start=2") as engine:
        first = engine.generate(ask(SAID, "first"))
        await anext(first)
        second = asyncio.create_task(hear(engine, ask(SAID, "second")))
        while not (stats.steps and stats.steps[-1].running == 2):
            await asyncio.sleep(0.01)
        end(engine)
        while len(stats.loads) < 2:
            await asyncio.sleep(0.01)
        early = asyncio.create_task(hear(engine, ask("early", "early")))
        await asyncio.sleep(0)
        await first.aclose()
        assert (await second)["second"].text == SAID
        assert (await early)["early"].text == "early"


async def test_one_that_freezes_while_nobody_is_there_is_found_by_who_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was asked, and never says that it took the request."""
    monkeypatch.setattr("server.engine.process.READING_SECONDS", 0.5)
    stats = Recorder()
    async with started(stats) as engine:
        end(engine, signal.SIGSTOP)
        heard = asyncio.create_task(hear(engine, ask(SAID)))
        asked = asyncio.create_task(engine.tokenize((TextPiece("abc"),)))
        assert (await heard)["r"].text == SAID
        assert (await asked).tokens == tuple(b"abc")
    assert stats.restarts == ["hang"]


async def test_questions_are_asked_again() -> None:
    async with started(Recorder()) as engine:
        end(engine, signal.SIGSTOP)
        asked = asyncio.create_task(engine.tokenize((TextPiece("abc"),)))
        await asyncio.sleep(0)
        end(engine)
        assert (await asked).tokens == tuple(b"abc")


async def test_vectors_go_on_where_they_were() -> None:
    stats = Recorder()
    request = EmbedRequest("e", tuple(f"text {i} " + "x" * 100 for i in range(300)))
    async with started(stats, "echo:embed,tokens=20000") as engine:

        async def vectors(kill: bool) -> tuple[bytes, int]:
            data, count = b"", 0
            async for events in engine.embed(request):
                for event in events:
                    if isinstance(event, Embedded):
                        data, count = data + event.data, count + event.count
                if kill and count:
                    end(engine)
                    kill = False
            assert not kill
            return data, count

        whole = await vectors(kill=False)
        assert await vectors(kill=True) == whole
    assert whole[1] == 300 and stats.restarts == ["SIGKILL"]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGSTOP])
async def test_however_it_ends(number: int) -> None:
    """Stopped is what hanging looks like: the watchdog ends it."""
    stats = Recorder()
    async with started(stats, draft=False) as engine:
        await hear(engine, *(ask(SAID, f"w{i}") for i in range(4)))
        stream = engine.generate(ask(SAID))
        heard = Heard()
        async for events in stream:
            for event in events:
                heard.add(event)
            if len(heard.tokens) > 5 and not stats.restarts and engine.ready:
                end(engine, number)
                number = 0
    assert (heard.text, len(stats.restarts)) == (SAID, 1)
