"""LlamaIndex's OpenAILike, which speaks Chat Completions when `is_chat_model` says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentStream, FunctionAgent, ToolCallResult
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from openai import BadRequestError

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


def _model(**more: Any) -> OpenAILike:
    return OpenAILike(
        model="echo",
        api_base=BASE,
        api_key="none",
        context_window=4096,
        temperature=0,
        max_retries=0,
        timeout=30,
        **{"is_chat_model": True, "is_function_calling_model": True, **more},
    )


def _said(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


def _offered(tools: Tools) -> list[FunctionTool]:
    return [FunctionTool.from_defaults(tools.weather), FunctionTool.from_defaults(tools.clock)]


def test_chat() -> None:
    answer = _model().chat(_said(MIXED))
    assert answer.message.content == MIXED
    assert answer.additional_kwargs["completion_tokens"] == len(MIXED.encode())
    assert _model().complete(MIXED).text == MIXED
    assert asyncio.run(_model().achat(_said(MIXED))).message.content == MIXED


def test_what_is_no_chat_model() -> None:
    """LlamaIndex's default: the prompt as it is, at `/v1/completions`."""
    prompt = f"<|turn|>user\n{MIXED}<|end|><|turn|>assistant\n"
    model = _model(is_chat_model=False, is_function_calling_model=False, max_tokens=200)
    assert model.complete(prompt).text == MIXED
    assert list(model.stream_complete(prompt))[-1].text == MIXED


def test_stream() -> None:
    chunks = list(_model().stream_chat(_said(MIXED)))
    assert "".join(chunk.delta or "" for chunk in chunks) == MIXED
    assert chunks[-1].message.content == MIXED and len(chunks) > 1


def test_calls() -> None:
    model, offered = _model(), _offered(Tools())
    whole = model.chat_with_tools(offered, CALLS, allow_parallel_tool_calls=True)
    *_, last = model.stream_chat_with_tools(offered, CALLS, allow_parallel_tool_calls=True)
    for answer in (whole, last):
        calls = model.get_tool_calls_from_response(answer)
        assert [(call.tool_name, call.tool_kwargs) for call in calls] == CALLED
        assert len({call.tool_id for call in calls}) == 2 and all(call.tool_id for call in calls)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_tool_loop(streaming: bool) -> None:
    tools = Tools()
    agent = FunctionAgent(tools=_offered(tools), llm=_model(), streaming=streaming)

    async def run() -> tuple[Any, list[Any]]:
        running = agent.run(CALLS)
        events = [event async for event in running.stream_events()]
        return await running, events

    answer, events = asyncio.run(run())
    assert sorted(tools.called) == sorted(CALLED)
    results = [event for event in events if isinstance(event, ToolCallResult)]
    assert len({event.tool_id for event in results}) == 2
    assert answer.response.content in {"Sun in Köln for 2 days ☀", "It is noon"}
    texts = [e.delta for e in events if isinstance(e, AgentStream) and e.delta]
    assert (len(texts) > 1) == streaming


def test_structured_output_by_a_call() -> None:
    said = call("Trip", TRIP.model_dump(mode="json"))
    structured = _model().as_structured_llm(Trip)
    assert structured.chat(_said(said)).raw == TRIP
    assert list(structured.stream_chat(_said(said)))[-1].raw == TRIP
    assert isinstance(structured.chat(_said("No.")).raw, Trip)


def test_structured_output_by_its_schema() -> None:
    model = _model(should_use_structured_outputs=True)
    said = PromptTemplate("{said}")
    assert model.structured_predict(Trip, said, said=TRIP_TEXT) == TRIP
    assert isinstance(model.structured_predict(Trip, said, said="No."), Trip)


def test_a_prompt_that_is_too_long() -> None:
    with pytest.raises(BadRequestError) as caught:
        _model().chat(_said(TOO_LONG))
    assert caught.value.code == "context_length_exceeded"
