"""litellm, whose errors and chunks many agents build on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import litellm
import pytest

from tests.clients.asks import BASE, CALLED, CALLS, MIXED, TOO_LONG, TRIP, TRIP_TEXT, Tools, Trip

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city", "days"],
            },
        },
    },
    {"type": "function", "function": {"name": "clock", "description": "The time of day."}},
]


def _ask(*messages: Any, **more: Any) -> dict[str, Any]:
    first, *rest = messages
    return {
        "model": "openai/echo",
        "api_base": BASE,
        "api_key": "none",
        "messages": [{"role": "user", "content": first}, *rest],
        "temperature": 0,
        "max_retries": 0,
        "timeout": 30,
        **more,
    }


def _calls(message: Any) -> list[tuple[str, Any]]:
    return [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls]


def _streamed(**ask: Any) -> Any:
    usage = {"include_usage": True}
    chunks = list(litellm.completion(**ask, stream=True, stream_options=usage))
    return litellm.stream_chunk_builder(chunks, messages=ask["messages"])


def test_chat() -> None:
    for answer in (
        litellm.completion(**_ask(MIXED)),
        asyncio.run(litellm.acompletion(**_ask(MIXED))),
    ):
        assert answer.choices[0].message.content == MIXED
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.completion_tokens == len(MIXED.encode())


def test_what_is_cut_off() -> None:
    (choice,) = litellm.completion(**_ask("Hello", max_tokens=3)).choices
    assert (choice.message.content, choice.finish_reason) == ("Hel", "length")


def test_stream() -> None:
    whole = _streamed(**_ask(MIXED))
    assert whole.choices[0].message.content == MIXED
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.completion_tokens == len(MIXED.encode())


def test_text_that_repeats_itself_is_no_fault_of_the_stream() -> None:
    """litellm gives up after a hundred chunks that are equal."""
    said = "\n" * 150 + "end"
    assert _streamed(**_ask(said)).choices[0].message.content == said


@pytest.mark.parametrize("streaming", [False, True])
def test_a_tool_loop(streaming: bool) -> None:
    complete = _streamed if streaming else litellm.completion
    (choice,) = complete(**_ask(CALLS, tools=TOOLS)).choices
    assert choice.finish_reason == "tool_calls"
    assert _calls(choice.message) == CALLED
    tools = Tools()
    results = [
        {
            "role": "tool",
            "tool_call_id": call.id,
            "content": getattr(tools, call.function.name)(**json.loads(call.function.arguments)),
        }
        for call in choice.message.tool_calls
    ]
    assert len({result["tool_call_id"] for result in results}) == 2
    (last,) = complete(**_ask(CALLS, choice.message, *results, tools=TOOLS)).choices
    assert (last.message.content, last.finish_reason) == ("It is noon", "stop")
    assert not last.message.tool_calls


def test_a_forced_call() -> None:
    (choice,) = litellm.completion(**_ask("Hi", tools=TOOLS, tool_choice="required")).choices
    called = {name for name, _ in _calls(choice.message)}
    assert called and called <= {"clock", "weather"}


def test_structured_output() -> None:
    for complete in (litellm.completion, _streamed):
        said = complete(**_ask(TRIP_TEXT, response_format=Trip)).choices[0].message.content
        assert Trip.model_validate_json(said) == TRIP
        said = complete(**_ask("No.", response_format=Trip)).choices[0].message.content
        assert isinstance(Trip.model_validate_json(said), Trip)


def test_a_prompt_that_is_too_long() -> None:
    for stream in (False, True):
        with pytest.raises(litellm.ContextWindowExceededError):
            litellm.completion(**_ask(TOO_LONG, stream=stream))


def test_embeddings() -> None:
    answer = litellm.embedding(
        model="openai/vec", input=["red", MIXED], api_base=BASE, api_key="none"
    )
    assert [len(item["embedding"]) for item in answer.data] == [48, 48]
