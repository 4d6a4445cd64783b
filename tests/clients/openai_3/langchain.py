"""langchain-openai, and LangChain's agent on top of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessageChunk, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.clients.asks import (
    BASE,
    CALLED,
    CALLS,
    MIXED,
    TOO_LONG,
    TRIP,
    TRIP_TEXT,
    Tools,
    Trip,
    call,
)


@pytest.fixture
def model() -> ChatOpenAI:
    return ChatOpenAI(
        model="echo", base_url=BASE, api_key="none", temperature=0, max_retries=0, timeout=30
    )


def _joined(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def test_chat(model: ChatOpenAI) -> None:
    answer = model.invoke(MIXED)
    assert answer.text == MIXED
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == "echo"
    assert answer.usage_metadata["output_tokens"] == len(MIXED.encode())


def test_what_is_cut_off(model: ChatOpenAI) -> None:
    """LangChain sends `max_completion_tokens` for it."""
    answer = model.bind(max_tokens=3).invoke("Hello")
    assert (answer.text, answer.response_metadata["finish_reason"]) == ("Hel", "length")


def test_stream(model: ChatOpenAI) -> None:
    async def streamed() -> list[AIMessageChunk]:
        assert (await model.ainvoke(MIXED)).text == MIXED
        return [chunk async for chunk in model.astream(MIXED, stream_usage=True)]

    for chunks in (list(model.stream(MIXED, stream_usage=True)), asyncio.run(streamed())):
        assert len([chunk for chunk in chunks if chunk.text]) > 1
        whole = _joined(chunks)
        assert whole.text == MIXED
        assert whole.response_metadata["finish_reason"] == "stop"
        assert whole.usage_metadata["output_tokens"] == len(MIXED.encode())


def test_streamed_calls_are_those_of_the_whole_answer(model: ChatOpenAI) -> None:
    tools = Tools()
    bound = model.bind_tools([tools.weather, tools.clock])
    streamed = _joined(list(bound.stream(CALLS)))
    for answer in (bound.invoke(CALLS), streamed):
        assert [(call["name"], call["args"]) for call in answer.tool_calls] == CALLED
        assert len({call["id"] for call in answer.tool_calls}) == 2
        assert answer.response_metadata["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_tool_loop(model: ChatOpenAI, streaming: bool) -> None:
    tools = Tools()
    agent = create_agent(model, [tools.weather, tools.clock], system_prompt="Be brief.")
    ask: Any = {"messages": [{"role": "user", "content": CALLS}]}
    if streaming:
        *_, state = agent.stream(ask, stream_mode="values")
    else:
        state = agent.invoke(ask)
    called, *results, last = state["messages"][1:]
    assert [result.tool_call_id for result in results if isinstance(result, ToolMessage)] == [
        call["id"] for call in called.tool_calls
    ]
    assert sorted(tools.called) == sorted(CALLED)
    assert (last.text, last.tool_calls) == ("It is noon", [])


@pytest.mark.parametrize("choice", ["any", "weather"])
def test_a_forced_call(model: ChatOpenAI, choice: str) -> None:
    answer = model.bind_tools([Tools().weather], tool_choice=choice).invoke("Hi")
    assert [call["name"] for call in answer.tool_calls] == ["weather"]


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_structured_output(model: ChatOpenAI, method: Any) -> None:
    structured = model.with_structured_output(Trip, method=method)
    assert structured.invoke(TRIP_TEXT) == TRIP
    *_, last = structured.stream(TRIP_TEXT)
    assert last == TRIP


@pytest.mark.parametrize("strict", [None, True])
def test_structured_output_by_a_call(model: ChatOpenAI, strict: bool | None) -> None:
    structured = model.with_structured_output(Trip, method="function_calling", strict=strict)
    assert structured.invoke(call("Trip", TRIP.model_dump(mode="json"))) == TRIP
    assert isinstance(structured.invoke("No."), Trip)


def test_a_prompt_that_is_too_long(model: ChatOpenAI) -> None:
    with pytest.raises(ContextOverflowError):
        model.invoke(TOO_LONG)
    with pytest.raises(ContextOverflowError):
        list(model.stream(TOO_LONG))


def test_embeddings() -> None:
    vectors = OpenAIEmbeddings(
        model="vec", base_url=BASE, api_key="none", check_embedding_ctx_length=False
    )
    assert [len(vector) for vector in vectors.embed_documents(["red", MIXED])] == [48, 48]
