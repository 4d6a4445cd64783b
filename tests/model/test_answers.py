"""Structure and scores on real models: what is promised holds, and the numbers are the model's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from server.core.config import EngineConfig, RunnerConfig, SchedulerConfig
from server.core.errors import InvalidRequest
from server.core.types import GenerateRequest, SamplingParams, TextPiece
from server.engine.process import EngineProcess
from tests.engine.test_answers import Answer
from tests.fakes import Recorder

from . import reference

pytestmark = [pytest.mark.model, pytest.mark.anyio]

GREEDY = SamplingParams(temperature=0)
TEMPERATURES = (0.0, 0.7, 1.5)
EVENT = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 30},
        "kind": {"enum": ["talk", "meal", "walk"]},
        "hours": {"type": "integer", "minimum": 1, "maximum": 12},
        "people": {
            "type": "array",
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 20}},
                "required": ["name"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["title", "kind", "hours", "people"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_pattern": "[ \\n]{0,4}"},
}
GRAMMAR = f"start: %json {json.dumps(EVENT)}"
CALL = {
    "type": "object",
    "properties": {
        "name": {"const": "weather"},
        "arguments": {
            "type": "object",
            "properties": {"city": {"enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "arguments"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=["smollm2", "qwen"])
def file(request: pytest.FixtureRequest) -> Path:
    name = "model_path" if request.param == "smollm2" else "qwen_path"
    return Path(request.getfixturevalue(name))


@contextlib.asynccontextmanager
async def started(file: Path, *, draft: bool = True) -> AsyncIterator[EngineProcess]:
    config = EngineConfig(
        "server.llama.runner:LlamaRunner",
        RunnerConfig(str(file), slots=4, context=1024),
        SchedulerConfig(draft=draft),
    )
    engine = EngineProcess("model", config, Recorder())
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@pytest.fixture(scope="module")
async def engine(file: Path) -> AsyncIterator[EngineProcess]:
    async with started(file) as made:
        yield made


@pytest.fixture
def names() -> Iterator[str]:
    return (f"r{number}" for number in range(1_000_000))


def ask(name: str, question: str, start: str = "", **more: object) -> GenerateRequest:
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{start}"
    return GenerateRequest(name, (TextPiece(prompt),), **{"sampling": GREEDY, **more})


async def answer(engine: EngineProcess, request: GenerateRequest) -> Answer:
    found = Answer()
    async for batch in engine.generate(request):
        for event in batch:
            found.add(event)
    return found


def check(text: str) -> None:
    event = json.loads(text)
    assert list(event) == ["title", "kind", "hours", "people"]
    assert len(event["title"]) <= 30
    assert event["kind"] in ("talk", "meal", "walk")
    assert 1 <= event["hours"] <= 12
    assert all(list(person) == ["name"] for person in event["people"])


async def test_stop_tokens_in_the_middle_of_a_schema_change_nothing(
    engine: EngineProcess, names: Iterator[str]
) -> None:
    question = "Describe a birthday party as JSON."
    free = await answer(engine, ask(next(names), question, grammar=GRAMMAR, max_tokens=400))
    check(free.text)
    stops = tuple(set(free.tokens))
    for logprobs in (None, 0):
        bound = ask(
            next(names),
            question,
            grammar=GRAMMAR,
            max_tokens=400,
            stop_tokens=stops,
            logprobs=logprobs,
        )
        found = await answer(engine, bound)
        assert (found.text, found.reason) == (free.text, "stop")


@pytest.mark.parametrize("temperature", TEMPERATURES)
async def test_what_finishes_fits_the_schema(
    engine: EngineProcess, names: Iterator[str], temperature: float
) -> None:
    asked = [
        ask(
            next(names),
            f"Describe event number {seed} as JSON.",
            grammar=GRAMMAR,
            max_tokens=200,
            sampling=SamplingParams(
                temperature=temperature, seed=seed, repeat_penalty=1.1, frequency_penalty=0.3
            ),
            logprobs=seed % 3 or None,
        )
        for seed in range(8)
    ]
    found = await asyncio.gather(*(answer(engine, request) for request in asked))
    assert sum(one.reason == "stop" for one in found) >= 6
    for one in found:
        if one.reason == "stop":
            check(one.text)


@pytest.mark.parametrize("choice", [{"mirostat": 1}, {"mirostat": 2}, {"typical_p": 0.5}])
async def test_every_way_of_choosing_keeps_to_the_grammar(
    engine: EngineProcess, names: Iterator[str], choice: dict[str, float]
) -> None:
    sampling = SamplingParams(temperature=1.0, seed=5, **choice)
    question = "Describe an event as JSON."
    one = await answer(engine, ask(next(names), question, grammar=GRAMMAR, sampling=sampling))
    check(one.text)
    free = [ask(next(names), question, sampling=sampling, max_tokens=30) for _ in range(2)]
    first, second = [await answer(engine, request) for request in free]
    assert first.tokens == second.tokens


@pytest.mark.parametrize(
    "sampling",
    [GREEDY, SamplingParams(temperature=0.8, top_p=0.9, top_k=40, seed=3, repeat_penalty=1.2)],
)
async def test_a_grammar_of_everything_changes_nothing(
    file: Path, names: Iterator[str], sampling: SamplingParams
) -> None:
    question = "Write a short story about a lighthouse keeper."
    texts = []
    for grammar in ("", "start: /(.|\\n)*/"):
        async with started(file, draft=False) as engine:
            request = ask(next(names), question, grammar=grammar, sampling=sampling, max_tokens=60)
            texts.append((await answer(engine, request)).text)
    assert texts[0] == texts[1]


async def test_a_ban_does_not_break_the_grammar(
    engine: EngineProcess, names: Iterator[str]
) -> None:
    """Every token that could begin the answer is banned: the grammar is kept all the same."""
    banned = dict.fromkeys(range(1000), -100.0)
    for temperature in (0.0, 1.0):
        sampling = SamplingParams(temperature=temperature, seed=1, logit_bias=banned)
        found = await answer(
            engine, ask(next(names), "Go.", grammar="start: /[{][}]/", sampling=sampling)
        )
        assert (found.text, found.reason) == ("{}", "stop")


async def test_guesses_do_not_change_a_constrained_answer(file: Path, names: Iterator[str]) -> None:
    record = ", ".join(f'{{"name": "person {n}", "city": "Springfield"}}' for n in range(6))
    question = f"Repeat this exactly: [{record}]"
    grammar = (
        'start: "[" person (", " person)* "]"\n'
        'person: "{\\"name\\": \\"" /[a-z0-9 ]+/ "\\", \\"city\\": \\"" /[A-Za-z]+/ "\\"}"\n'
    )
    texts = []
    for draft in (False, True):
        async with started(file, draft=draft) as engine:
            found = await answer(
                engine, ask(next(names), question, grammar=grammar, max_tokens=150)
            )
            texts.append(found.text)
    assert texts[0] == texts[1]


async def test_a_call_in_the_middle_of_text(engine: EngineProcess, names: Iterator[str]) -> None:
    grammar = f"""start: head call tail
tail: /(.|\\n)*/
head[lazy]: /(.|\\n){{0,40}}<tool_call>/
call: "\\n" %json {json.dumps(CALL)} "\\n</tool_call>"
"""
    found = await answer(
        engine, ask(next(names), "Call the tool.", grammar=grammar, max_tokens=120)
    )
    call = found.text.partition("<tool_call>\n")[2].partition("\n</tool_call>")[0]
    assert json.loads(call)["arguments"]["city"] in ("Rome", "Oslo")


async def test_control_tokens_are_forced_by_id(engine: EngineProcess, names: Iterator[str]) -> None:
    mark = engine.info.special_tokens["<|im_start|>"]
    grammar = f'start: think <[{mark}]> "So: " /[a-z]{{3,12}}/\nthink[max_tokens=8]: /(.|\\n)*/'
    found = await answer(
        engine,
        ask(next(names), "Think.", grammar=grammar, shown_tokens=(mark,), max_tokens=60),
    )
    thought, _, said = found.text.partition("<|im_start|>So: ")
    assert thought and said.isalpha() and said.islower()
    assert found.tokens.index(mark) <= 8


async def test_scores_are_the_models_own(
    engine: EngineProcess, names: Iterator[str], file: Path
) -> None:
    biased = SamplingParams(
        temperature=1.3, seed=11, repeat_penalty=1.3, logit_bias={300: 5.0}, top_k=50
    )
    request = ask(
        next(names), "Name a fruit.", sampling=biased, max_tokens=24, logprobs=5,
        prompt_logprobs=True, grammar="start: /[a-zA-Z ,.]+/",
    )  # fmt: skip
    found = await answer(engine, request)
    assert found.prompt is not None and found.end is not None
    prompt = [entry.chosen.token for entry in found.prompt.logprobs]
    first = engine.info.special_tokens["<|im_start|>"]
    tokens = [first, *prompt, *found.tokens]
    rows = reference.log_probabilities(file, tokens, 1 + len(prompt))
    entries = [*found.prompt.logprobs, *found.logprobs]
    assert len(found.logprobs) == len(found.tokens) == found.end.usage.completion_tokens
    wrong = []
    for row, entry in zip(rows, entries, strict=False):
        wrong.append(entry.chosen.logprob - row[entry.chosen.token])
        best = np.sort(row)[::-1][:5]
        wrong += [top.logprob - value for top, value in zip(entry.top, best, strict=True)]
    assert np.max(np.abs(wrong)) < 1e-4
    assert "".join(entry.chosen.text for entry in found.logprobs) == found.text


async def test_a_scored_prompt_leaves_nothing_out(
    engine: EngineProcess, names: Iterator[str], file: Path
) -> None:
    tokens = tuple(1000 + 7 * n for n in range(150))
    request = GenerateRequest(
        next(names), (), max_tokens=0, prompt_tokens=tokens, prompt_logprobs=True, logprobs=0
    )
    for _ in range(2):
        found = await answer(engine, request)
        assert found.prompt is not None and found.end is not None
        assert (found.reason, found.end.usage.cached_tokens) == ("length", 0)
        scored = [entry.chosen.logprob for entry in found.prompt.logprobs]
        rows = reference.log_probabilities(file, list(tokens), len(tokens))
        expected = [row[token] for row, token in zip(rows, tokens[1:], strict=False)]
        assert np.abs(np.array(scored) - expected).max() < 1e-4


async def test_an_end_is_put_off_or_left_out(engine: EngineProcess, names: Iterator[str]) -> None:
    question = "Say yes."
    plain = await answer(engine, ask(next(names), question, max_tokens=100))
    assert plain.reason == "stop"
    for sampling in (
        SamplingParams(temperature=0, min_tokens=len(plain.tokens) + 10),
        SamplingParams(temperature=0, ignore_end=True),
        SamplingParams(temperature=0.9, seed=1, min_tokens=100),
        SamplingParams(temperature=0.9, seed=1, ignore_end=True),
    ):
        longer = await answer(engine, ask(next(names), question, sampling=sampling, max_tokens=100))
        least = min(100, sampling.min_tokens or 100)
        assert len(longer.tokens) >= least


async def test_hostile_grammars_slow_nobody_down(
    engine: EngineProcess, names: Iterator[str]
) -> None:
    async def pace() -> list[float]:
        at = []
        request = ask(
            next(names), "Tell a long story.", max_tokens=120,
            sampling=SamplingParams(temperature=0, ignore_end=True),
        )  # fmt: skip
        async for batch in engine.generate(request):
            at += [time.monotonic()] * len(batch)
        return list(np.diff(at))

    async def refused(number: int) -> float:
        periods = (7, 11, 13, 17, 19, 23, 29 + 2 * number)
        grammar = "start: A\nA: " + " & ".join(f"/(.{{{n}}})*/" for n in periods)
        started = time.monotonic()
        with pytest.raises(InvalidRequest):
            await answer(engine, ask(next(names), "x", grammar=grammar))
        return time.monotonic() - started

    alone = await pace()
    beside, seconds = await asyncio.gather(pace(), refused(0))
    assert seconds < 2.5
    assert np.median(beside) < 3 * np.median(alone) + 0.03
    assert max(beside) < 1.0
