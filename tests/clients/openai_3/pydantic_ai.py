"""pydantic-ai, which validates every answer and chunk."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

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


def _agent(**more: Any) -> Agent[None, Any]:
    client = AsyncOpenAI(base_url=BASE, api_key="none", max_retries=0, timeout=30)
    model = OpenAIChatModel(
        "echo", provider=OpenAICompatibleProvider("ingle", openai_client=client)
    )
    return Agent(model, model_settings={"temperature": 0}, instructions="Be brief.", **more)


async def _run(agent: Agent[None, Any], said: str, streaming: bool) -> Any:
    if not streaming:
        return await agent.run(said)
    async with agent.run_stream(said) as result:
        await result.get_output()
        return result


async def _output(agent: Agent[None, Any], said: str, streaming: bool) -> Any:
    result = await _run(agent, said, streaming)
    return await result.get_output() if streaming else result.output


both = pytest.mark.parametrize("streaming", [False, True])


@both
def test_chat(streaming: bool) -> None:
    result = asyncio.run(_run(_agent(), MIXED, streaming))
    last = result.all_messages()[-1]
    assert isinstance(last, ModelResponse)
    assert (last.text, last.finish_reason, last.model_name) == (MIXED, "stop", "echo")
    assert last.usage.output_tokens == len(MIXED.encode())


def test_stream() -> None:
    async def streamed() -> list[str]:
        async with _agent().run_stream(MIXED) as result:
            return [text async for text in result.stream_text(delta=True, debounce_by=None)]

    texts = asyncio.run(streamed())
    assert "".join(texts) == MIXED and len(texts) > 1


@both
def test_a_tool_loop(streaming: bool) -> None:
    tools = Tools()
    agent = _agent(tools=[tools.weather, tools.clock])
    result = asyncio.run(_run(agent, CALLS, streaming))
    assert sorted(tools.called) == sorted(CALLED)
    _, called, returned, last = result.all_messages()
    assert called.finish_reason == "tool_call"
    assert [part.tool_call_id for part in called.parts] == [
        part.tool_call_id for part in returned.parts
    ]
    assert (last.text, last.finish_reason) == ("It is noon", "stop")


@both
@pytest.mark.parametrize(
    ("output", "said"),
    [
        (ToolOutput(Trip), call("final_result", TRIP.model_dump(mode="json"))),
        (NativeOutput(Trip), TRIP_TEXT),
        (PromptedOutput(Trip), TRIP_TEXT),
    ],
    ids=["tool", "native", "prompted"],
)
def test_structured_output(output: Any, said: str, streaming: bool) -> None:
    assert asyncio.run(_output(_agent(output_type=output), said, streaming)) == TRIP


@pytest.mark.parametrize("output", [ToolOutput(Trip), NativeOutput(Trip)], ids=["tool", "native"])
def test_structured_output_whatever_the_model_says(output: Any) -> None:
    agent = _agent(output_type=output, retries=0)
    assert isinstance(asyncio.run(_output(agent, "No.", streaming=False)), Trip)


def test_a_prompt_that_is_too_long() -> None:
    with pytest.raises(ModelHTTPError) as caught:
        asyncio.run(_output(_agent(), TOO_LONG, streaming=False))
    assert caught.value.status_code == 400
    assert "context_length_exceeded" in str(caught.value.body)
