"""Chat through the real app: streams and whole answers say the same, and every choice is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from msgspec import structs
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from server.core.types import (
    Admitted,
    EngineEvent,
    Finished,
    GenerateRequest,
    Scored,
    TokenDelta,
    TokenLogprob,
    Usage,
)
from tests.fakes import FakeEngine, FakeFormat, says

from .conftest import Serve
from .streams import chunks_of, joined

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
F = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
G = {"type": "function", "function": {"name": "g"}}
NAMED_F = {"type": "function", "function": {"name": "f"}}
ALLOWED_F = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED_F]}}


def _engine(text: str, reason: Any = "stop") -> FakeEngine:
    return FakeEngine(says(text, reason))


async def _whole(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post(CHAT, json={"messages": HI, **body})
    assert response.status_code == 200, response.text
    ChatCompletion.model_validate_json(response.content, strict=True)
    whole: dict[str, Any] = response.json()
    return whole


async def _streamed(client: httpx2.AsyncClient, **body: Any) -> list[dict[str, Any]]:
    response = await client.post(CHAT, json={"messages": HI, **body, "stream": True})
    assert response.status_code == 200, response.text
    return chunks_of(response.text, choices=body.get("n") or 1)


def _message(choice: dict[str, Any]) -> dict[str, Any]:
    """A whole message without what streams leave out, and without its ids."""
    kept = ("content", "reasoning_content", "tool_calls", "function_call")
    message = {key: choice[key] for key in kept if key in choice}
    for call in message.get("tool_calls", []):
        assert call.pop("id")
    return message


ANSWERS = {
    "text": ("Hello 🦊", {}),
    "nothing": ("", {}),
    "reasoning": ("‹3 and 4›7", {}),
    "only reasoning": ("‹3 and", {}),
    "one call": ('«f:{"a": "é"}»', {"tools": [F]}),
    "two calls": ("So: «f:{}»«g:{}»", {"tools": [F, G]}),
    "reasoning and a call": ("‹hm›«f:{}»", {"tools": [F]}),
    "tools unused": ("No.", {"tools": [F]}),
    "json": ('{"a": 1}', {"response_format": {"type": "json_object"}}),
    "scores": ("‹h›Hé", {"logprobs": True, "top_logprobs": 3}),
    "scores and a call": ("So «f:{}»", {"tools": [F], "logprobs": True}),
}


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", ANSWERS)
async def test_a_stream_adds_up_to_the_whole_answer(serve: Serve, name: str, n: int) -> None:
    text, more = ANSWERS[name]
    async with serve(_engine(text), format=FakeFormat()) as client:
        whole = await _whole(client, **more, n=n)
        chunks = await _streamed(client, **more, n=n)
    for index, choice in enumerate(whole["choices"]):
        stream = joined(chunks, index)
        assert _message(stream["message"]) == _message(choice["message"])
        assert stream["reason"] == choice["finish_reason"]
        assert stream["scores"] == (choice["logprobs"] or {"content": []})["content"]
        assert choice["index"] == index
    assert whole["usage"]["completion_tokens"] == n * len(text)
    assert whole["usage"]["prompt_tokens"] == 7


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "only reasoning"])
async def test_the_sdk_adds_a_stream_up_to_the_whole_answer(serve: Serve, name: str) -> None:
    text, more = ANSWERS[name]
    async with serve(_engine(text), format=FakeFormat()) as http:
        client = openai.AsyncOpenAI(
            base_url="http://localhost/v1", api_key="none", http_client=http
        )
        ask: dict[str, Any] = {"model": "fake", "messages": HI, **more}
        whole = await client.chat.completions.create(**ask)
        options = {"include_usage": True}
        async with client.chat.completions.stream(**ask, stream_options=options) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()
    for said, streamed in zip(whole.choices, final.choices, strict=True):
        assert (said.message.content or "") == (streamed.message.content or "")
        assert said.finish_reason == streamed.finish_reason
        assert said.message.role == streamed.message.role
        calls = [
            [(c.type, c.function.name, c.function.arguments) for c in m.tool_calls or ()]
            for m in (said.message, streamed.message)
        ]
        assert calls[0] == calls[1]
        assert said.logprobs == streamed.logprobs or said.logprobs is None
    assert final.usage == whole.usage


class Answer(BaseModel):
    a: int


async def test_the_sdk_parses_an_answer_into_a_model(serve: Serve) -> None:
    async with serve(_engine('{"a": 1}'), format=FakeFormat()) as http:
        client = openai.AsyncOpenAI(
            base_url="http://localhost/v1", api_key="none", http_client=http
        )
        ask: dict[str, Any] = {"model": "fake", "messages": HI, "response_format": Answer}
        parsed = await client.chat.completions.parse(**ask)
    assert parsed.choices[0].message.parsed == Answer(a=1)


async def test_the_sdk_knows_an_answer_that_was_cut_off(serve: Serve) -> None:
    async with serve(_engine('{"a"', "length"), format=FakeFormat()) as http:
        client = openai.AsyncOpenAI(
            base_url="http://localhost/v1", api_key="none", http_client=http
        )
        with pytest.raises(openai.LengthFinishReasonError):
            await client.chat.completions.parse(
                model="fake", messages=HI, response_format=Answer, max_tokens=4
            )


@pytest.mark.parametrize(
    ("text", "more", "content"),
    [
        ("«f:{", {"tools": [F], "tool_choice": "required"}, ""),
        ("‹never ends", {}, ""),
        ('{"a"', {"response_format": {"type": "json_object"}}, '{"a"'),
    ],
)
async def test_what_is_cut_off_ends_with_length_and_half_a_call_is_none(
    serve: Serve, text: str, more: dict[str, Any], content: str
) -> None:
    async with serve(_engine(text, "length"), format=FakeFormat()) as client:
        (choice,) = (await _whole(client, **more))["choices"]
        chunks = await _streamed(client, **more)
    assert choice["finish_reason"] == joined(chunks)["reason"] == "length"
    assert choice["message"]["content"] == content
    assert "tool_calls" not in choice["message"]


async def test_three_choices_begin_before_any_speaks(serve: Serve) -> None:
    async with serve(_engine("Hi"), format=FakeFormat()) as client:
        chunks = await _streamed(client, n=3)
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1, 2] * 4


@pytest.mark.parametrize("k", [None, 0, 5, 20])
async def test_scores_are_as_many_as_asked_for(serve: Serve, k: int | None) -> None:
    text = "‹h›Hé🦊"
    async with serve(_engine(text), format=FakeFormat()) as client:
        (choice,) = (await _whole(client, logprobs=True, top_logprobs=k))["choices"]
    entries = choice["logprobs"]["content"]
    assert choice["logprobs"]["refusal"] is None
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == "Hé🦊"
    assert "".join(entry["token"] for entry in entries) == "Hé🦊"
    for entry in entries:
        top = [other["logprob"] for other in entry["top_logprobs"]]
        assert len(top) == (k or 0) and top == sorted(top, reverse=True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", [{"top_logprobs": 21, "logprobs": True}, {"top_logprobs": 1}])
async def test_too_many_scores_are_refused(
    serve: Serve, body: dict[str, Any], stream: bool
) -> None:
    async with serve() as client:
        response = await client.post(CHAT, json={"messages": HI, **body, "stream": stream})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "top_logprobs"


CHOICES: dict[str, Any] = {
    "absent": ...,
    "null": None,
    "auto": "auto",
    "none": "none",
    "required": "required",
    "any": "any",
    "named": NAMED_F,
    "allowed": ALLOWED_F,
    "bogus": "bogus",
    "empty": {},
    "unknown": {"type": "function", "function": {"name": "h"}},
}
TOOLS: dict[str, Any] = {"given": [F, G], "empty": [], "absent": ...}
MODES = {
    **dict.fromkeys(("absent", "null", "auto", "allowed"), "auto"),
    **dict.fromkeys(("required", "any", "named"), "required"),
    "none": "none",
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tools", TOOLS)
@pytest.mark.parametrize("choice", CHOICES)
async def test_every_tool_choice_with_and_without_tools(
    serve: Serve, choice: str, tools: str, stream: bool
) -> None:
    body = {"messages": HI, "stream": stream, "tools": TOOLS[tools], "tool_choice": CHOICES[choice]}
    body = {key: value for key, value in body.items() if value is not ...}
    format = FakeFormat()
    async with serve(_engine("«f:{}»"), format=format) as client:
        response = await client.post(CHAT, json=body)
    harmless = choice in ("absent", "null", "auto", "none")
    if choice not in MODES or (tools != "given" and not harmless):
        assert response.status_code == 400
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("invalid_value", "tool_choice")
        return
    assert response.status_code == 200
    assert format.ask.mode == (MODES[choice] if tools == "given" else "none")
    called = format.ask.mode != "none"
    if stream:
        found = joined(chunks_of(response.text))
        message, reason = found["message"], found["reason"]
    else:
        (whole,) = response.json()["choices"]
        message, reason = whole["message"], whole["finish_reason"]
    assert reason == ("tool_calls" if called else "stop")
    assert message["content"] == (None if called else "«f:{}»")
    assert ("tool_calls" in message) == called


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
ECHOED = {
    "role": "assistant",
    "content": None,
    "refusal": None,
    "annotations": [],
    "audio": None,
    "function_call": None,
    "tool_calls": [CALL],
    "reasoning_content": "hm",
    "parsed": None,
    "name": None,
    "extra_field": {"a": 1},
}


@pytest.mark.parametrize(
    "history",
    [
        [ECHOED, {"role": "tool", "content": "ok", "tool_call_id": "c"}],
        [
            {
                "role": "assistant",
                "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "content": [{"type": "text", "text": "ok"}], "tool_call_id": "c"},
        ],
        [{"role": "assistant", "content": "x", "tool_calls": None, "reasoning": "hm"}],
        [{"role": "assistant", "content": "x", "tool_calls": []}],
        [{"role": "tool", "content": None, "tool_call_id": "of a turn that was cut off"}],
        [
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "f", "arguments": "{}"},
            },
            {"role": "function", "name": "f", "content": None},
        ],
        [{"role": "assistant", "content": None, "refusal": "no"}],
        [{"role": "developer", "content": "Be brief.", "name": "ops"}],
    ],
)
async def test_histories_that_clients_echo_are_taken(
    serve: Serve, history: list[dict[str, Any]]
) -> None:
    async with serve(_engine("Hi"), format=FakeFormat()) as client:
        await _whole(client, messages=[*HI, *history, *HI])


FULL: dict[str, Any] = {
    "messages": HI,
    "tools": [
        {
            "type": "function",
            "function": {"name": "f", "description": None, "parameters": None, "strict": None},
        }
    ],
    "stream_options": {"include_usage": None},
}


async def test_null_is_absent_wherever_it_stands(serve: Serve) -> None:
    from server.schemas.chat import ChatRequest

    names = {*ChatRequest.model_fields, *ChatRequest.refused, *ChatRequest.ignored} - {"messages"}
    nulls = dict.fromkeys(names)
    engine = _engine("Hi")
    async with serve(engine, format=FakeFormat()) as client:
        await _whole(client)
        absent = engine.requests[0]
        response = await client.post(CHAT, json={"messages": HI, **nulls})
        assert response.status_code == 200 and "x-ignored-params" not in response.headers
        (given,) = engine.requests
        assert structs.replace(given, id="") == structs.replace(absent, id="")
        await _whole(client, **FULL)
        await _whole(client, response_format={"type": "text", "json_schema": None})
        await _whole(client, max_tokens=-1, max_completion_tokens=None)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url", "bogus"])
async def test_what_a_text_model_cannot_read_is_refused(serve: Serve, kind: str) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "?"}, {"type": kind, kind: {}}]}
    async with serve() as client:
        response = await client.post(CHAT, json={"messages": [*HI, message]})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_content", "messages[1].content[1]")


def _impossible(requests: tuple[GenerateRequest, ...]) -> Iterator[list[EngineEvent]]:
    """Scores that are no numbers of JSON."""
    yield [Admitted(r.id, 3) for r in requests]
    bad = (("a", math.nan), ("b", -math.inf))
    others = tuple(Scored(1, text, text.encode(), score) for text, score in bad)
    for at, (text, score) in enumerate(bad):
        scored = TokenLogprob(Scored(1, text, text.encode(), score), others, at)
        yield [TokenDelta(r.id, text, (1,), (scored,)) for r in requests]
    yield [Finished(r.id, "stop", Usage(3, 0, 2), 0.0) for r in requests]


@pytest.mark.parametrize("stream", [False, True])
async def test_scores_of_impossible_tokens_are_numbers_all_the_same(
    serve: Serve, stream: bool
) -> None:
    async with serve(FakeEngine(_impossible), format=FakeFormat()) as client:
        chat = {"messages": HI, "logprobs": True, "top_logprobs": 2, "stream": stream}
        said = await client.post(CHAT, json=chat)
        text = {"prompt": "Hi", "logprobs": 2, "best_of": 1, "stream": stream}
        completed = await client.post("/v1/completions", json=text)
    for response in (said, completed):
        assert response.status_code == 200, response.text
        assert "NaN" not in response.text and "Infinity" not in response.text
        assert response.text.count("-9999.0") == 2 * 3
