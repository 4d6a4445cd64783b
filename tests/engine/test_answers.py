"""Grammars, scores, token ids and control tokens: the echo runner behind the real worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import pytest

from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.core.errors import ContextOverflow, InvalidRequest
from server.core.types import (
    EngineEvent,
    Finished,
    GenerateRequest,
    PromptScored,
    SamplingParams,
    TokenDelta,
    TokenLogprob,
)
from server.engine.echo import END, MARK
from server.engine.process import EngineProcess
from tests.fakes import Recorder

from . import asking

pytestmark = pytest.mark.anyio

DEADLINE = 20.0
GREEDY = SamplingParams(temperature=0)
ask = partial(asking.ask, plain=False)
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
JSON = f"start: %json {json.dumps(PERSON)}"
CALLS = f"""start: (head call)* tail
tail: TEXT
TEXT: /(.|\\n)*/
head[lazy]: /(.|\\n)*<tool_call>/
call: "\\n" %json {json.dumps(PERSON)} "\\n</tool_call>"
"""


RECORDER = Recorder()


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[EngineProcess]:
    config = EngineConfig(
        "server.engine.echo:EchoRunner",
        RunnerConfig("echo:", context=512, slots=4),
        SchedulerConfig(),
    )
    made = EngineProcess("echo", config, RECORDER)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@dataclass
class Answer:
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    deltas: list[TokenDelta] = field(default_factory=list)
    prompt: PromptScored | None = None
    end: Finished | None = None

    @property
    def reason(self) -> str:
        assert self.end is not None
        return self.end.reason

    def add(self, event: EngineEvent) -> None:
        if isinstance(event, TokenDelta):
            self.deltas.append(event)
            self.text += event.text
            self.tokens += event.tokens
            self.logprobs += event.logprobs
        elif isinstance(event, PromptScored):
            assert not self.deltas
            self.prompt = event
        elif isinstance(event, Finished):
            self.end = event


async def answer(engine: EngineProcess, request: GenerateRequest) -> Answer:
    found = Answer()
    async with asyncio.timeout(DEADLINE), contextlib.aclosing(engine.generate(request)) as events:
        async for batch in events:
            for event in batch:
                found.add(event)
    return found


@pytest.mark.parametrize(
    "said",
    [
        '{"name": "Ann", "age": 7}',
        '{"name":"Ärger 🦊","age":-1,"tags":["a","b"]}',
        '{\n  "name": "",\n  "age": 0\n}',
    ],
)
async def test_what_is_valid_comes_out_unchanged(engine: EngineProcess, said: str) -> None:
    found = await answer(engine, ask(said, grammar=JSON))
    assert (found.text, found.reason) == (said, "stop")
    assert found.end is not None
    assert found.end.usage.completion_tokens == len(said.encode()) == len(found.tokens)


@pytest.mark.parametrize("said", ["", "tell me about Ann", '{"name": 7', '{"nick": "A"}', "[[[["])
@pytest.mark.parametrize("logprobs", [None, 0])
async def test_what_is_not_becomes_valid(
    engine: EngineProcess, said: str, logprobs: int | None
) -> None:
    found = await answer(engine, ask(said, grammar=JSON, logprobs=logprobs))
    assert found.reason == "stop"
    person = json.loads(found.text)
    assert isinstance(person["name"], str) and isinstance(person["age"], int)
    assert set(person) <= set(PERSON["properties"])


async def test_forced_tokens_cost_no_steps_of_their_own(engine: EngineProcess) -> None:
    grammar = 'start: "x" "the only way to go on from here" /[a-c]/'
    steps = []
    for logprobs in (None, 0):
        RECORDER.steps.clear()
        found = await answer(engine, ask("xx", grammar=grammar, logprobs=logprobs))
        assert found.text.startswith("xthe only way to go on from here")
        steps.append(sum(step.batch_size > 0 for step in RECORDER.steps))
    forced, one_by_one = steps
    assert forced <= 6 < 30 < one_by_one, "scores are asked for token by token"


async def test_a_limit_cuts_a_constrained_answer(engine: EngineProcess) -> None:
    said = '{"name": "Ann", "age": 7}'
    found = await answer(engine, ask(said, grammar=JSON, max_tokens=10))
    assert (found.text, found.reason) == (said[:10], "length")
    exact = await answer(engine, ask(said, grammar=JSON, max_tokens=len(said)))
    assert (exact.text, exact.reason) == (said, "stop")


async def test_forced_tokens_keep_to_the_limit(engine: EngineProcess) -> None:
    found = await answer(engine, ask("abc", grammar='start: "abcdefghij"', max_tokens=4))
    assert (found.text, found.reason, len(found.tokens)) == ("abcd", "length", 4)


@pytest.mark.parametrize(
    "said",
    [
        "no call at all",
        'first\n<tool_call>\n{"name": "A", "age": 1}\n</tool_call>\nthen <b>text</b>',
        '<tool_call>\n{"name": "A", "age": 1}\n</tool_call><tool_call>\n{"name": "B", "age": 2}\n'
        "</tool_call>",
    ],
)
async def test_text_with_calls_is_left_alone(engine: EngineProcess, said: str) -> None:
    found = await answer(engine, ask(said, grammar=CALLS))
    assert (found.text, found.reason) == (said, "stop")


async def test_a_call_is_kept_to_its_schema(engine: EngineProcess) -> None:
    said = 'so <tool_call>\n{"name": 5, "years": 1}'
    found = await answer(engine, ask(said, grammar=CALLS))
    before, _, call = found.text.partition("<tool_call>\n")
    assert before == "so "
    assert isinstance(json.loads(call.partition("\n</tool_call>")[0])["name"], str)


async def test_a_block_is_closed_when_its_budget_is_spent(engine: EngineProcess) -> None:
    grammar = f'start: think <[{MARK}]> "so"\nthink[max_tokens=5]: /(.|\\n)*/'
    found = await answer(engine, ask("thinking aloud", grammar=grammar, shown_tokens=(MARK,)))
    assert found.text == "think<|mark|>so"
    early = await answer(engine, ask("ab<|mark|>so", grammar=grammar, shown_tokens=(MARK,)))
    assert early.text == "ab<|mark|>so"


async def test_an_end_comes_only_where_the_grammar_may_end(engine: EngineProcess) -> None:
    found = await answer(engine, ask("ab", grammar="start: /[a-z]{4,}/"))
    assert len(found.text) == 4 and found.text.startswith("ab")
    assert found.reason == "stop"


CHAIN = {
    "$defs": {
        f"d{n}": {"type": "object", "properties": {"x": {"$ref": f"#/$defs/d{n + 1}"}}}
        for n in range(5000)
    }
    | {"d5000": {"type": "string"}},
    "$ref": "#/$defs/d0",
}


@pytest.mark.parametrize(
    "grammar",
    [
        "start: nowhere",
        'start: "open',
        "begin: 'a'",
        'start: %json {"type": "frob"}',
        "start: /(?=a)b/",
        "start: <[99999]>",
        'start: %json {"enum": ["' + "x" * 5_000_000 + '"]}',
        # llguidance ends its process here.
        f"start: %json {json.dumps(CHAIN)}",
        # The product of many periods: nothing in llguidance bounds this one.
        "start: A\nA: " + " & ".join(f"/(.{{{n}}})*/" for n in (7, 11, 13, 17, 19, 23, 29)),
    ],
)
async def test_a_bad_grammar_is_refused_before_anything(
    engine: EngineProcess, grammar: str
) -> None:
    started = time.monotonic()
    with pytest.raises(InvalidRequest) as refusal:
        await answer(engine, ask("a", grammar=grammar))
    assert time.monotonic() - started < 2.5
    assert (refusal.value.error_code, refusal.value.param) == ("invalid_grammar", "grammar")
    assert "\n" not in refusal.value.message
    assert (await answer(engine, ask("b", grammar='start: "b"'))).text == "b"


async def test_a_hostile_grammar_keeps_nobody_waiting(engine: EngineProcess) -> None:
    hostile = "start: A\nA: " + " & ".join(f"/(.{{{n}}})*/" for n in (7, 11, 13, 17, 19, 23, 31))

    async def refused() -> float:
        with pytest.raises(InvalidRequest):
            await answer(engine, ask("a", "hostile", grammar=hostile))
        return time.monotonic()

    waiting = asyncio.ensure_future(refused())
    await asyncio.sleep(0)
    assert (await answer(engine, ask("plain words"))).text == "plain words"
    answered = time.monotonic()
    assert answered < await waiting


async def test_a_request_cancelled_while_its_grammar_compiles_is_gone() -> None:
    stats = Recorder()
    config = EngineConfig(
        "server.engine.echo:EchoRunner",
        RunnerConfig("echo:", context=512, slots=4),
        SchedulerConfig(),
    )
    engine = EngineProcess("echo", config, stats)
    await engine.start()
    try:
        slow = "start: A\nA: " + " & ".join(f"/(.{{{n}}})*/" for n in (7, 11, 13, 17))
        asking = asyncio.ensure_future(answer(engine, ask("a" * 300, "gone", grammar=slow)))
        await asyncio.wait((asking,), timeout=0.02)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        # Whoever wants the same grammar waits with it: with this one the other is through.
        found = await answer(engine, ask("b", "next", grammar=slow))
    finally:
        await engine.stop()
    assert found.end is not None
    assert sum(step.prefill_tokens for step in stats.steps) == found.end.usage.prompt_tokens


async def test_each_token_is_scored_once_with_its_text(engine: EngineProcess) -> None:
    said = "naïve 🦊 — fine\n"
    found = await answer(engine, ask(said, logprobs=3))
    assert [entry.chosen.token for entry in found.logprobs] == found.tokens
    assert b"".join(entry.chosen.data or b"" for entry in found.logprobs) == said.encode()
    assert all(entry.chosen.logprob == pytest.approx(-math.log(2)) for entry in found.logprobs)
    for entry in found.logprobs:
        assert len(entry.top) == 3
        assert [top.logprob for top in entry.top] == sorted(
            (top.logprob for top in entry.top), reverse=True
        )
        assert entry.chosen.text == (entry.chosen.data or b"").decode("utf-8", "replace")
    for delta in found.deltas:
        data = b"".join(entry.chosen.data or b"" for entry in delta.logprobs)
        assert data.decode() == delta.text
    offsets = [len(said.encode()[:i].decode("utf-8", "ignore")) for i in range(len(said.encode()))]
    assert [entry.offset for entry in found.logprobs] == offsets


async def test_alternatives_are_as_many_as_asked_and_none_without(engine: EngineProcess) -> None:
    assert not (await answer(engine, ask("ab"))).logprobs
    none = await answer(engine, ask("ab", logprobs=0))
    assert [entry.top for entry in none.logprobs] == [(), ()]


async def test_the_scores_of_a_stop_string_go_with_it(engine: EngineProcess) -> None:
    found = await answer(engine, ask("one STALL two STOP three", stop=("STOP",), logprobs=0))
    assert found.text == "one STALL two "
    assert "".join(entry.chosen.text for entry in found.logprobs) == found.text
    for delta in found.deltas:
        assert "".join(entry.chosen.text for entry in delta.logprobs) == delta.text


async def test_scores_do_not_know_of_the_grammar(engine: EngineProcess) -> None:
    found = await answer(engine, ask("a", grammar='start: "b"', logprobs=1))
    (entry,) = found.logprobs
    assert (entry.chosen.text, entry.top[0].text) == ("b", "a")
    assert entry.chosen.logprob == pytest.approx(-2 * math.log(2))


async def test_an_alternative_without_text_is_spelled(engine: EngineProcess) -> None:
    found = await answer(engine, ask("\xff".encode("latin-1").decode("latin-1"), logprobs=2))
    texts = {top.text: top for entry in found.logprobs for top in entry.top}
    assert all(top.data is not None for text, top in texts.items() if text != "<|end|>")
    grammar = "start: /[\\xC0-\\xFF]/"
    ended = await answer(engine, ask("", grammar=grammar, logprobs=1))
    assert ended.logprobs[0].top[0].text == "<|end|>"
    assert ended.logprobs[0].top[0].data is None


async def test_every_token_of_a_prompt_is_scored(engine: EngineProcess) -> None:
    request = ask("score me, ü", "first", prompt_logprobs=True, logprobs=2, scope="score")
    await answer(engine, ask("score me, ü", "before", scope="score"))
    found = await answer(engine, request)
    assert found.prompt is not None and found.end is not None
    assert found.end.usage.cached_tokens == 0
    whole = "<|turn|>user\nscore me, ü<|end|><|turn|>assistant\n"
    assert found.prompt.text == whole
    assert len(found.prompt.logprobs) == found.end.usage.prompt_tokens - 1
    tokens = [257, *b"user\n", *"score me, ü".encode(), 256, 257, *b"assistant\n"]
    assert [entry.chosen.token for entry in found.prompt.logprobs] == tokens[1:]
    for before, entry in zip(tokens, found.prompt.logprobs, strict=False):
        rank = (entry.chosen.token - before) % 259
        assert entry.chosen.logprob == pytest.approx(-math.log(2) * (rank + 1))
        assert entry.top[0].token == before
    ends = [entry.offset for entry in found.prompt.logprobs if entry.chosen.token == 256]
    assert ends == [whole.index("<|end|>")]


async def test_no_tokens_asked_means_the_prompt_is_read_and_no_more(engine: EngineProcess) -> None:
    found = await answer(engine, ask("abc", max_tokens=0, prompt_logprobs=True, logprobs=0))
    assert (found.text, found.tokens, found.reason) == ("", [], "length")
    assert found.prompt is not None and len(found.prompt.logprobs) > 5
    single = GenerateRequest("one", (), max_tokens=0, prompt_logprobs=True, prompt_tokens=(97,))
    alone = await answer(engine, single)
    assert alone.prompt is not None
    assert (alone.prompt.text, alone.prompt.logprobs, alone.reason) == ("a", (), "length")


async def test_token_ids_are_taken_as_they_are(engine: EngineProcess) -> None:
    tokens = (257, *b"user\nhello", 256, 257, *b"assistant\n")
    found = await answer(engine, GenerateRequest("ids", (), GREEDY, prompt_tokens=tokens))
    assert found.text == "hello"
    assert found.end is not None and found.end.usage.prompt_tokens == len(tokens)


@pytest.mark.parametrize("token", [-1, 259, 1 << 40])
async def test_token_ids_out_of_the_vocabulary_are_refused(
    engine: EngineProcess, token: int
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await answer(engine, GenerateRequest("ids", (), prompt_tokens=(97, token)))
    assert (refusal.value.param, refusal.value.error_code) == ("prompt", "invalid_value")
    assert str(token) in refusal.value.message


async def test_too_many_token_ids_are_named_by_their_field(engine: EngineProcess) -> None:
    with pytest.raises(ContextOverflow) as refusal:
        await answer(engine, GenerateRequest("ids", (), prompt_tokens=(97,) * 600))
    assert refusal.value.param == "prompt"


async def test_control_tokens_show_only_where_asked(engine: EngineProcess) -> None:
    said = "a<|mark|>b"
    plain = await answer(engine, ask(said, logprobs=0))
    shown = await answer(engine, ask(said, shown_tokens=(MARK,), logprobs=0))
    assert (plain.text, shown.text) == ("ab", said)
    assert plain.tokens == shown.tokens == [97, MARK, 98]
    assert [entry.chosen.data for entry in plain.logprobs] == [b"a", None, b"b"]
    assert [entry.chosen.data for entry in shown.logprobs] == [b"a", b"<|mark|>", b"b"]


async def test_a_stop_token_ends_like_an_end_token(engine: EngineProcess) -> None:
    found = await answer(engine, ask("ab<|mark|>cd", stop_tokens=(MARK,), shown_tokens=(MARK,)))
    assert (found.text, found.tokens, found.reason) == ("ab", [97, 98], "stop")
    byte = await answer(engine, ask("abcd", stop_tokens=(ord("c"),)))
    assert (byte.text, byte.reason) == ("ab", "stop")


async def test_a_stop_token_waits_for_the_grammar(engine: EngineProcess) -> None:
    found = await answer(
        engine, ask("a<|mark|>bc", stop_tokens=(MARK,), grammar="start: /[a-z]{3}/")
    )
    assert len(found.text) == 3 and found.reason == "stop"


async def test_a_stop_token_in_the_middle_of_a_grammar_is_text(engine: EngineProcess) -> None:
    comma = (ord(","),)
    said = '{"name": "A, B", "age": 7, "tags": ["a,b"]}'
    whole = await answer(engine, ask(said, stop_tokens=comma, grammar=JSON))
    assert (whole.text, whole.reason) == (said, "stop")
    forced = await answer(engine, ask("a,b", stop_tokens=comma, grammar='start: "a,b,c"'))
    assert (forced.text, forced.reason) == ("a,b,c", "stop")
    last = await answer(engine, ask("a,", stop_tokens=comma, grammar='start: "a,"'))
    assert (last.text, last.reason) == ("a,", "stop")
    needed = await answer(engine, ask("ax", stop_tokens=tuple(b"bc}"), grammar="start: /a[bc]{3}/"))
    assert (len(needed.text), needed.reason) == (4, "stop"), "the grammar needs what may end it"
    free = await answer(engine, ask("ab,cd", stop_tokens=comma, grammar="start: /.{2,}/"))
    assert (free.text, free.reason) == ("ab", "stop"), "here the grammar may end"


async def test_a_stop_string_counts_in_visible_text_only(engine: EngineProcess) -> None:
    said = "<think>not STOP here</think>but STOP here"
    pairs = (("<think>", "</think>"),)
    found = await answer(engine, ask(said, stop=("STOP",), hidden=pairs, logprobs=0))
    assert found.text == "<think>not STOP here</think>but "
    assert "".join(entry.chosen.text for entry in found.logprobs) == found.text


async def test_an_answer_is_as_long_as_asked(engine: EngineProcess) -> None:
    found = await answer(engine, ask("ab", sampling=SamplingParams(temperature=0, min_tokens=6)))
    assert (len(found.tokens), found.text[:2], found.reason) == (6, "ab", "stop")
    endless = SamplingParams(temperature=0, ignore_end=True)
    long = await answer(engine, ask("ab", sampling=endless, max_tokens=40))
    assert (len(long.tokens), long.reason) == (40, "length")
    assert END not in long.tokens


async def test_a_grammar_that_cannot_be_followed_costs_its_own_request_only(
    engine: EngineProcess,
) -> None:
    tangled = 'start: s\ns: s s s s s | s s s s | s s s | s s | "a"'
    asked = ask("a" * 200, "tangled", grammar=tangled)
    neighbour = asyncio.ensure_future(answer(engine, ask("plain words", "plain")))
    with pytest.raises(InvalidRequest, match="could not be followed") as refusal:
        await answer(engine, asked)
    assert refusal.value.error_code == "invalid_grammar"
    assert (await neighbour).text == "plain words"
    assert (await answer(engine, ask("again"))).text == "again"


async def test_guesses_are_held_to_the_grammar() -> None:
    stats = Recorder()
    config = EngineConfig(
        "server.engine.echo:EchoRunner",
        RunnerConfig("echo:rate=300", context=1024, slots=2),
        SchedulerConfig(),
    )
    engine = EngineProcess("echo", config, stats)
    await engine.start()
    try:
        said = "over and over and over and over and over and over and over and done. " * 4
        grammar = "start: /[a-z .]+/"
        free = await answer(engine, ask(said, "free", logprobs=1))
        bound = await answer(engine, ask(said, "bound", grammar=grammar, logprobs=1))
        short = await answer(engine, ask(said, "short", grammar="start: /[a-z ]{50}/"))
    finally:
        await engine.stop()
    assert sum(step.accepted for step in stats.steps) > 50
    assert free.text == bound.text == said
    assert free.logprobs == bound.logprobs
    assert [entry.chosen.token for entry in bound.logprobs] == bound.tokens
    assert (short.text, short.reason) == (said[:50], "stop")
