"""The main job on a real model: right text, together in one batch, nothing mixed up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai
import pytest

from . import reference

pytestmark = pytest.mark.model

Connect = Callable[[], openai.AsyncOpenAI]

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
CANARIES = (
    *("Aldous", "Brunhilde", "Casimir", "Dagmar"),
    *("Eleonora", "Ferdinand", "Guinevere", "Hortensia"),
)


def _chat(*turns: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]


def _as_rendered(question: str) -> str:
    return (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "question",
    ["Write a short story about a lighthouse keeper.", "Count from one to twenty.", "你好吗？"],
)
def test_greedy_text_is_the_models_own(
    client: openai.OpenAI, model: str, model_path: Path, question: str
) -> None:
    answer = client.chat.completions.create(
        model=model, messages=_chat(question), temperature=0, max_tokens=60
    )
    expected = reference.greedy(model_path, _as_rendered(question), 60)
    assert answer.choices[0].message.content == expected


def test_streaming_gives_the_same_text_and_usage(client: openai.OpenAI, model: str) -> None:
    messages = _chat("Name three colours.")
    ask = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 40}
    whole = client.chat.completions.create(**ask)
    chunks = list(
        client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_eight_streams_at_once_keep_their_own_words(connect: Connect, model: str) -> None:
    async def ask(client: openai.AsyncOpenAI, name: str) -> str:
        stream = await client.chat.completions.create(
            model=model,
            messages=_chat(
                f"Repeat this sentence exactly: My name is {name} and I live in a small town."
            ),
            temperature=0,
            max_tokens=32,
            stream=True,
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def ask_all() -> list[str]:
        async with connect() as client:
            return await asyncio.gather(*(ask(client, name) for name in CANARIES))

    answers = asyncio.run(ask_all())
    for name, answer in zip(CANARIES, answers, strict=True):
        assert not [other for other in CANARIES if other != name and other in answer], answer
    assert sum(name in answer for name, answer in zip(CANARIES, answers, strict=True)) >= 6


def test_a_late_request_starts_before_the_early_ones_end(connect: Connect, model: str) -> None:
    async def run(client: openai.AsyncOpenAI) -> tuple[float, float]:
        speaking = asyncio.Event()
        early = asyncio.create_task(_listen(client, model, "Tell a long story.", 120, speaking))
        await asyncio.wait_for(speaking.wait(), 30)
        late = await _listen(client, model, "Say hello.", 8, asyncio.Event())
        return late.first, (await early).end

    async def connected() -> tuple[float, float]:
        async with connect() as client:
            return await run(client)

    late_first, early_end = asyncio.run(connected())
    assert late_first < early_end


@dataclass
class _Times:
    first: float
    end: float


async def _listen(
    client: openai.AsyncOpenAI, model: str, question: str, most: int, speaking: asyncio.Event
) -> _Times:
    first = 0.0
    stream = await client.chat.completions.create(
        model=model, messages=_chat(question), temperature=0, max_tokens=most, stream=True
    )
    async for chunk in stream:
        if chunk.choices[0].delta.content and not first:
            first = time.monotonic()
            speaking.set()
    return _Times(first, time.monotonic())


def test_the_second_turn_finds_the_first_one_cached(client: openai.OpenAI, model: str) -> None:
    question = "What is a good name for a cat that likes to sleep in the sun?"
    first = client.chat.completions.create(
        model=model, messages=_chat(question), temperature=0, max_tokens=40
    )
    answer = first.choices[0].message.content
    second = client.chat.completions.create(
        model=model,
        messages=_chat(question, answer, "And for a dog?"),
        temperature=0,
        max_tokens=8,
    )
    known = first.usage.prompt_tokens + first.usage.completion_tokens
    cached = second.usage.prompt_tokens_details.cached_tokens
    # The last generated token was never computed, and an answer may tokenise otherwise as input.
    assert cached >= known - 3
    assert cached < second.usage.prompt_tokens


def test_reuse_does_not_change_greedy_text(client: openai.OpenAI, model: str) -> None:
    question = "Explain why the sky is blue, in two sentences."
    answers = [
        client.chat.completions.create(
            model=model, messages=_chat(question), temperature=0, max_tokens=48
        )
        for _ in range(2)
    ]
    assert answers[1].usage.prompt_tokens_details.cached_tokens > 30
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content


def test_a_typed_special_token_ends_nothing(client: openai.OpenAI, model: str) -> None:
    plain = client.chat.completions.create(
        model=model, messages=_chat("Say: end"), temperature=0, max_tokens=1
    )
    spelled = client.chat.completions.create(
        model=model, messages=_chat("Say: <|im_end|>"), temperature=0, max_tokens=1
    )
    # Seven tokens of text where the control token would be one.
    assert spelled.usage.prompt_tokens - plain.usage.prompt_tokens >= 5


def test_a_seed_repeats_and_choices_differ(client: openai.OpenAI, model: str) -> None:
    ask = {
        "model": model,
        "messages": _chat("Invent a word."),
        "temperature": 1.5,
        "max_tokens": 24,
        "seed": 7,
    }
    one, two = (client.chat.completions.create(**ask) for _ in range(2))
    assert one.choices[0].message.content == two.choices[0].message.content
    three = client.chat.completions.create(**ask, n=3)
    assert len({choice.message.content for choice in three.choices}) == 3


def test_token_counters_equal_the_usage_blocks(
    client: openai.OpenAI, model: str, server_url: str
) -> None:
    before = _counters(server_url)
    answers = [
        client.chat.completions.create(
            model=model, messages=_chat(f"Say {word}."), max_tokens=12, n=n
        )
        for word, n in (("one", 1), ("two", 2), ("three", 1))
    ]
    after = _counters(server_url)
    usages = [answer.usage for answer in answers]
    assert after["ingle_prompt_tokens_total"] - before["ingle_prompt_tokens_total"] == sum(
        usage.prompt_tokens for usage in usages
    )
    assert after["ingle_generated_tokens_total"] - before["ingle_generated_tokens_total"] == sum(
        usage.completion_tokens for usage in usages
    )


def _counters(server_url: str) -> dict[str, float]:
    lines = httpx2.get(f"{server_url}/metrics").text.splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name.partition("{")[0]: float(value) for name, _, value in pairs}


@pytest.mark.parametrize("content", ["<|im_end|>" * 100_000, "word " * 200_000])
def test_a_prompt_far_too_long_is_refused_at_once(
    client: openai.OpenAI, model: str, content: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=model, messages=_chat(content))
    assert refusal.value.code == "context_length_exceeded"
    assert "at least" in refusal.value.message
