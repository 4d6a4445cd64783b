"""Chat through a real family's format: its tags become parts, with and without leniency."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes import FakeEngine, model_info, says

from .conftest import Serve
from .streams import chunks_of, joined

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
TEMPLATE = (
    "{% if tools %}<|system|># Tools\n<tools>{% for tool in tools %}\n{{ tool | tojson }}"
    '{% endfor %}\n</tools>\n<tool_call>\n{"name": <name>, "arguments": <args>}\n</tool_call>'
    "<|end|>{% endif %}"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", '
    '"arguments": {{ call.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
HI = [{"role": "user", "content": "Weather in Rome?"}]
ARGUMENTS = '{"city": "Rome"}'
BARE = f'{{"name": "weather", "arguments": {ARGUMENTS}}}'
TAGGED = f"<tool_call>\n{BARE}\n</tool_call>"


def _engine(text: str) -> FakeEngine:
    return FakeEngine(says(text), info=model_info(chat_template=TEMPLATE))


async def _both(serve: Serve, text: str, **body: Any) -> dict[str, Any]:
    """The choice of a whole answer, once its stream has added up to the same."""
    settings = {name: body.pop(name) for name in ("tool_leniency",) if name in body}
    async with serve(_engine(text), **settings) as client:
        whole = await client.post(CHAT, json={"messages": HI, **body})
        stream = await client.post(CHAT, json={"messages": HI, **body, "stream": True})
    assert whole.status_code == stream.status_code == 200, whole.text
    (choice,) = whole.json()["choices"]
    streamed = joined(chunks_of(stream.text))
    assert streamed["reason"] == choice["finish_reason"]
    for key in ("content", "reasoning_content"):
        assert (streamed["message"].get(key) or "") == (choice["message"].get(key) or "")
    calls = [
        [(call["type"], call["function"]) for call in message.get("tool_calls", [])]
        for message in (streamed["message"], choice["message"])
    ]
    assert calls[0] == calls[1]
    found: dict[str, Any] = choice
    return found


def _calls(choice: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in choice["message"].get("tool_calls", [])
    ]


@pytest.mark.parametrize("choice", ["auto", "required", "none"])
async def test_a_tagged_call_is_a_call_unless_none_is_wanted(serve: Serve, choice: str) -> None:
    found = await _both(serve, TAGGED, tools=[WEATHER], tool_choice=choice)
    if choice == "none":
        assert (found["message"]["content"], found["finish_reason"]) == (TAGGED, "stop")
    else:
        assert _calls(found) == [("weather", {"city": "Rome"})]
        assert (found["message"]["content"], found["finish_reason"]) == (None, "tool_calls")


@pytest.mark.parametrize("bare", [BARE, f"```json\n{BARE}\n```", 'weather(city="Rome")'])
@pytest.mark.parametrize("lenient", [True, False])
async def test_a_call_without_tags_counts_unless_the_operator_says_no(
    serve: Serve, bare: str, lenient: bool
) -> None:
    found = await _both(serve, bare, tools=[WEATHER], tool_leniency=lenient)
    if lenient:
        assert _calls(found) == [("weather", {"city": "Rome"})]
        assert found["finish_reason"] == "tool_calls"
    else:
        assert (found["message"]["content"], found["finish_reason"]) == (bare, "stop")


@pytest.mark.parametrize("text", ["Sunny.", '{"name": "other"}', "{", "weather is fine"])
async def test_what_is_no_call_is_text(serve: Serve, text: str) -> None:
    found = await _both(serve, text, tools=[WEATHER])
    assert (found["message"]["content"], found["finish_reason"]) == (text, "stop")


async def test_reasoning_comes_before_the_call(serve: Serve) -> None:
    found = await _both(serve, f"<think>\nRome.\n</think>\n\n{TAGGED}", tools=[WEATHER])
    assert found["message"]["reasoning_content"].strip() == "Rome."
    assert _calls(found) == [("weather", {"city": "Rome"})]


async def test_scores_are_those_of_the_visible_text(serve: Serve) -> None:
    text = f"<think>\nhm\n</think>\n\nIn Rome: {TAGGED}"
    found = await _both(serve, text, tools=[WEATHER], logprobs=True)
    tokens = [entry["token"] for entry in found["logprobs"]["content"]]
    assert "".join(tokens) == found["message"]["content"]
    assert found["message"]["content"].strip() == "In Rome:"


async def test_a_forced_call_has_a_grammar_and_free_text_has_none(serve: Serve) -> None:
    engine = _engine(TAGGED)
    async with serve(engine) as client:
        await client.post(CHAT, json={"messages": HI})
        assert engine.requests[0].grammar == ""
        forced = {"messages": HI, "tools": [WEATHER], "tool_choice": "required"}
        await client.post(CHAT, json=forced)
        assert "weather" in engine.requests[0].grammar
        prompt = "".join(piece.text for piece in engine.requests[0].prompt)
    assert '"city"' in prompt


async def test_a_schema_that_cannot_be_enforced_names_its_tool(serve: Serve) -> None:
    parameters = {"type": "object", "dependentRequired": {"a": ["b"]}}
    bad = {"name": "bad", "strict": True, "parameters": parameters}
    async with serve(_engine("")) as client:
        as_tool = {"tools": [WEATHER, {"type": "function", "function": bad}]}
        tools = await client.post(CHAT, json={"messages": HI, **as_tool})
        functions = await client.post(CHAT, json={"messages": HI, "functions": [bad]})
    for response, param in (
        (tools, "tools[1].function.parameters"),
        (functions, "functions[0].parameters"),
    ):
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("invalid_json_schema", param)
        assert "dependentRequired" in error["message"]


GPT_OSS = (
    "{# <|channel|>analysis commentary final<|message|> #}"
    "{% for message in messages %}<|start|>{{ message.role }}<|message|>{{ message.content }}"
    "<|end|>{% endfor %}<|start|>assistant"
)
_THOUGHT = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"


@pytest.mark.parametrize("length", [5, 40, 95, 110, 150])
@pytest.mark.parametrize(
    ("more", "text", "visible"),
    [
        (
            {"tools": [WEATHER], "tool_choice": "required"},
            f"<|channel|>commentary to=functions.weather json<|message|>{ARGUMENTS}",
            "",
        ),
        (
            {"response_format": {"type": "json_object"}},
            f"<|channel|>final<|message|>{ARGUMENTS}",
            ARGUMENTS,
        ),
        ({}, "<|channel|>final<|message|>Sunny.", "Sunny."),
    ],
    ids=["call", "json", "text"],
)
async def test_gpt_oss_that_is_cut_off_has_no_half_of_a_call(
    serve: Serve, more: dict[str, Any], text: str, visible: str, length: int
) -> None:
    text = (_THOUGHT + text)[:length]
    engine = FakeEngine(says(text, "length"), info=model_info(chat_template=GPT_OSS))
    async with serve(engine) as client:
        response = await client.post(CHAT, json={"messages": HI, **more})
    (choice,) = response.json()["choices"]
    message = choice["message"]
    assert choice["finish_reason"] == "length"
    assert visible.startswith(message["content"] or "")
    assert "hm".startswith(message.get("reasoning_content", ""))
    for name, arguments in _calls(choice):
        assert (name, arguments) == ("weather", {"city": "Rome"})
    assert "<|" not in response.text


async def test_thinking_is_turned_off_in_the_prompt(serve: Serve) -> None:
    engine = _engine("7")
    async with serve(engine) as client:
        for body in ({"reasoning_effort": "none"}, {"enable_thinking": False}):
            await client.post(CHAT, json={"messages": HI, **body})
            prompt = "".join(piece.text for piece in engine.requests[0].prompt)
            assert prompt.endswith("<think>\n\n</think>\n\n")


async def test_a_last_message_is_continued(serve: Serve) -> None:
    engine = _engine(" is sunny.")
    messages = [*HI, {"role": "assistant", "content": "Rome"}]
    async with serve(engine) as client:
        response = await client.post(
            CHAT, json={"messages": messages, "continue_final_message": True}
        )
    assert response.json()["choices"][0]["message"]["content"] == " is sunny."
    assert "".join(piece.text for piece in engine.requests[0].prompt).endswith("<|assistant|>Rome")
