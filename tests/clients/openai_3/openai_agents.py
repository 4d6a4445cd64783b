"""openai-agents over Chat Completions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    ToolCallOutputItem,
    function_tool,
)
from openai import AsyncOpenAI, BadRequestError
from openai.types.responses import ResponseTextDeltaEvent

from tests.clients.asks import BASE, CALLED, CALLS, MIXED, TOO_LONG, TRIP, TRIP_TEXT, Tools, Trip


def _agent(**more: Any) -> Agent[None]:
    client = AsyncOpenAI(base_url=BASE, api_key="none", max_retries=0, timeout=30)
    model = OpenAIChatCompletionsModel(model="echo", openai_client=client)
    settings = ModelSettings(temperature=0, include_usage=True)
    return Agent(name="a", instructions="Be brief.", model=model, model_settings=settings, **more)


async def _run(agent: Agent[None], said: str, streaming: bool) -> tuple[Any, list[str]]:
    """The result, and the text as it came."""
    if not streaming:
        return await Runner.run(agent, said), []
    result = Runner.run_streamed(agent, said)
    texts = [
        event.data.delta
        async for event in result.stream_events()
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent)
    ]
    return result, texts


both = pytest.mark.parametrize("streaming", [False, True])


@both
def test_chat(streaming: bool) -> None:
    result, texts = asyncio.run(_run(_agent(), MIXED, streaming))
    assert result.final_output == MIXED
    assert "".join(texts) == (MIXED if streaming else "") and len(texts) != 1
    assert result.context_wrapper.usage.output_tokens == len(MIXED.encode())


@both
def test_a_tool_loop(streaming: bool) -> None:
    tools = Tools()
    offered: Any = [function_tool(tools.weather), function_tool(tools.clock)]
    result, _ = asyncio.run(_run(_agent(tools=offered), CALLS, streaming))
    assert sorted(tools.called) == sorted(CALLED)
    outputs = [item for item in result.new_items if isinstance(item, ToolCallOutputItem)]
    assert [item.output for item in outputs] == ["Sun in Köln for 2 days ☀", "It is noon"]
    assert result.final_output == "It is noon"


@both
def test_structured_output(streaming: bool) -> None:
    agent = _agent(output_type=Trip)
    assert asyncio.run(_run(agent, TRIP_TEXT, streaming))[0].final_output == TRIP


def test_a_prompt_that_is_too_long() -> None:
    with pytest.raises(BadRequestError) as caught:
        asyncio.run(_run(_agent(), TOO_LONG, streaming=False))
    assert caught.value.code == "context_length_exceeded"
