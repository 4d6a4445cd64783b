"""What a user of the openai SDK does, with any of its majors, at CLIENTS_BASE_URL.

Imports the SDK and what it comes with; the server may be any that serves the models of `run.py`.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Iterator
from enum import StrEnum
from inspect import isawaitable
from operator import attrgetter
from typing import Any, Optional

import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

pytestmark = pytest.mark.filterwarnings("error")
MIXED = "Hi 🦊, 跳过 naïve 👩‍🚀 e\u0301 — \u2028 end"
CALLS = (
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 2}}\n</tool_call>\n'
    '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
)
CALLED = [("weather", {"city": "Rome", "days": 2}), ("clock", {})]
BETA = [p for p in ("", "beta.") if p == "" or hasattr(openai.OpenAI(api_key="-").beta, "chat")]


class Unit(StrEnum):
    KM = "km"
    MILE = "mile"


class Leg(BaseModel):
    to: str
    distance: float
    unit: Unit


class Trip(BaseModel):
    name: str
    legs: list[Leg]
    note: Optional[str]  # noqa: UP045


class weather(BaseModel):
    city: str
    days: int


class clock(BaseModel):
    pass


TRIP = Trip(name="Tour ü", legs=[Leg(to="Rome", distance=1.5, unit=Unit.KM)], note=None)
TRIP_TEXT = json.dumps(TRIP.model_dump(mode="json"), ensure_ascii=False)
TOOLS = [openai.pydantic_function_tool(weather), openai.pydantic_function_tool(clock)]


class Api:
    """The SDK's client of either kind, called alike."""

    def __init__(self, kind: str) -> None:
        make = openai.OpenAI if kind == "sync" else openai.AsyncOpenAI
        base = os.environ["CLIENTS_BASE_URL"]
        self._client: Any = make(base_url=base, api_key="none", max_retries=0, timeout=30)
        self._runner = asyncio.Runner()

    def call(self, path: str, *args: Any, **ask: Any) -> Any:
        return self._runner.run(self._call(path, *args, **ask))

    def items(self, path: str, *args: Any, **ask: Any) -> list[Any]:
        async def run() -> list[Any]:
            return await _all(await self._call(path, *args, **ask))

        return self._runner.run(run())

    def accumulated(self, path: str, **ask: Any) -> tuple[list[Any], Any]:
        """The events of the SDK's own accumulator, and what it makes of them."""

        async def run() -> tuple[list[Any], Any]:
            manager = attrgetter(path)(self._client)(**ask)
            if hasattr(manager, "__aenter__"):
                async with manager as stream:
                    return await _all(stream), await stream.get_final_completion()
            with manager as stream:
                return await _all(stream), stream.get_final_completion()

        return self._runner.run(run())

    def close(self) -> None:
        self.call("close")
        self._runner.close()

    async def _call(self, path: str, *args: Any, **ask: Any) -> Any:
        answer = attrgetter(path)(self._client)(*args, **ask)
        return await answer if isawaitable(answer) else answer


async def _all(items: Any) -> list[Any]:
    return [item async for item in items] if hasattr(items, "__aiter__") else list(items)


@pytest.fixture(scope="module", params=["sync", "async"])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    made = Api(request.param)
    yield made
    made.close()


def _ask(text: str, **more: Any) -> dict[str, Any]:
    """Greedy, so that the echo is the text itself."""
    messages = [{"role": "user", "content": text}]
    return {"model": "echo", "messages": messages, "temperature": 0, **more}


def _prompt(said: str) -> str:
    return f"<|turn|>user\n{said}<|end|><|turn|>assistant\n"


def _strict(kind: type[BaseModel], *bodies: BaseModel) -> None:
    """The SDK itself accepts any body; its types must too, to the letter."""
    assert bodies
    for body in bodies:
        assert type(body) is kind
        found = body.model_dump(mode="json", exclude_unset=True)
        if kind is Completion:  # the API's own chunks say null here, which its type forgets
            for choice in found["choices"]:
                choice["finish_reason"] = choice["finish_reason"] or "stop"
        kind.model_validate_json(json.dumps(found), strict=True)


def _calls(choice: Any) -> list[tuple[str, Any]]:
    calls = choice.message.tool_calls or []
    assert all(call.id and call.type == "function" for call in calls)
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


def test_chat(api: Api) -> None:
    whole = api.call("chat.completions.create", **_ask(MIXED))
    _strict(ChatCompletion, whole)
    (choice,) = whole.choices
    assert (choice.message.role, choice.message.content) == ("assistant", MIXED)
    assert (whole.object, whole.model, choice.finish_reason) == ("chat.completion", "echo", "stop")
    assert whole._request_id and choice.message.tool_calls is None
    assert whole.usage.completion_tokens == len(MIXED.encode())
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_a_chat_stream_ends_with_its_usage(api: Api) -> None:
    usage = {"include_usage": True}
    ask = _ask(MIXED, stream=True, n=2, stream_options=usage, max_completion_tokens=30)
    *chunks, last = api.items("chat.completions.create", **ask)
    _strict(ChatCompletionChunk, *chunks, last)
    assert len({(c.id, c.created, c.model, c.object) for c in [*chunks, last]}) == 1
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    whole = api.call("chat.completions.create", **_ask(MIXED, n=2, max_completion_tokens=30))
    _strict(ChatCompletion, whole)
    assert last.choices == [] and last.usage.total_tokens == whole.usage.total_tokens
    for choice in whole.choices:
        mine = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert mine[0].delta.role == "assistant"
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert [c.finish_reason for c in mine if c.finish_reason] == ["length"]
        assert choice.finish_reason == "length"


def test_no_usage_unless_asked_for(api: Api) -> None:
    chunks = api.items("chat.completions.create", **_ask("Hi", stream=True))
    _strict(ChatCompletionChunk, *chunks)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("beta", BETA)
def test_stream_accumulates(api: Api, beta: str) -> None:
    ask = _ask(MIXED, logprobs=True, top_logprobs=2, stream_options={"include_usage": True})
    events, final = api.accumulated(f"{beta}chat.completions.stream", **ask)
    whole = api.call("chat.completions.create", **_ask(MIXED, logprobs=True, top_logprobs=2))
    _strict(ChatCompletion, whole)
    kinds = {event.type for event in events}
    assert kinds >= {"chunk", "content.delta", "content.done", "logprobs.content.done"}
    assert final.choices[0].message.content == MIXED
    assert final.choices[0].logprobs == whole.choices[0].logprobs
    assert final.usage.completion_tokens == whole.usage.completion_tokens
    scores = whole.choices[0].logprobs.content
    assert b"".join(bytes(score.bytes) for score in scores).decode() == MIXED
    assert all(len(score.top_logprobs) == 2 for score in scores)


@pytest.mark.parametrize("beta", BETA)
def test_a_pydantic_model_is_parsed(api: Api, beta: str) -> None:
    ask = _ask(TRIP_TEXT, response_format=Trip)
    whole = api.call(f"{beta}chat.completions.parse", **ask)
    assert whole.choices[0].message.parsed == TRIP
    events, final = api.accumulated(f"{beta}chat.completions.stream", **ask)
    assert final.choices[0].message.parsed == TRIP
    assert [e.parsed for e in events if e.type == "content.done"] == [TRIP]


def test_a_pydantic_model_holds_whatever_the_model_says(api: Api) -> None:
    whole = api.call("chat.completions.parse", **_ask("No.", response_format=Trip))
    assert isinstance(whole.choices[0].message.parsed, Trip)


def test_what_is_cut_off_is_not_parsed(api: Api) -> None:
    ask = _ask(TRIP_TEXT, response_format=Trip, max_tokens=5)
    with pytest.raises(openai.LengthFinishReasonError):
        api.call("chat.completions.parse", **ask)


def test_a_json_object(api: Api) -> None:
    ask = _ask('{"a": [1, "ü"]}', response_format={"type": "json_object"})
    whole = api.call("chat.completions.create", **ask)
    _strict(ChatCompletion, whole)
    assert json.loads(whole.choices[0].message.content) == {"a": [1, "ü"]}


def test_tools(api: Api) -> None:
    whole = api.call("chat.completions.create", **_ask(CALLS, tools=TOOLS))
    _strict(ChatCompletion, whole)
    (choice,) = whole.choices
    assert (_calls(choice), choice.finish_reason) == (CALLED, "tool_calls")
    assert choice.message.content is None
    chunks = api.items("chat.completions.create", **_ask(CALLS, tools=TOOLS, stream=True))
    _strict(ChatCompletionChunk, *chunks)
    deltas = [d for chunk in chunks for c in chunk.choices for d in c.delta.tool_calls or []]
    for index, (name, arguments) in enumerate(CALLED):
        first, *rest = (delta for delta in deltas if delta.index == index)
        assert (first.function.name, first.type) == (name, "function") and first.id
        said = "".join(delta.function.arguments or "" for delta in (first, *rest))
        assert json.loads(said) == arguments
        assert all(delta.id is None and delta.function.name is None for delta in rest)


@pytest.mark.parametrize("beta", BETA)
def test_tools_are_parsed(api: Api, beta: str) -> None:
    whole = api.call(f"{beta}chat.completions.parse", **_ask(CALLS, tools=TOOLS))
    events, final = api.accumulated(f"{beta}chat.completions.stream", **_ask(CALLS, tools=TOOLS))
    for answer in (whole, final):
        assert _calls(answer.choices[0]) == CALLED
        parsed = [c.function.parsed_arguments for c in answer.choices[0].message.tool_calls]
        assert parsed == [weather(city="Rome", days=2), clock()]
    done = [e.name for e in events if e.type == "tool_calls.function.arguments.done"]
    assert done == ["weather", "clock"]


def test_a_tool_loop(api: Api) -> None:
    """The SDK's own message goes back as the history."""
    first = api.call("chat.completions.create", **_ask(CALLS, tools=TOOLS)).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"{call.function.name} is done"}
        for call in first.tool_calls
    ]
    messages = [{"role": "user", "content": CALLS}, first, *results]
    ask = {**_ask("", tools=TOOLS), "messages": messages}
    last = api.call("chat.completions.create", **ask)
    _strict(ChatCompletion, last)
    assert "clock is done" in last.choices[0].message.content
    assert last.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("none", set()),
        ("required", {"weather", "clock"}),
        ({"type": "function", "function": {"name": "weather"}}, {"weather"}),
    ],
    ids=["none", "required", "named"],
)
def test_the_tool_choice_is_kept(api: Api, choice: Any, names: set[str]) -> None:
    whole = api.call("chat.completions.create", **_ask("Hi", tools=TOOLS, tool_choice=choice))
    _strict(ChatCompletion, whole)
    called = {name for name, _ in _calls(whole.choices[0])}
    assert called <= names and bool(called) == bool(names)


def test_completions(api: Api) -> None:
    ask = {"model": "echo", "prompt": _prompt(MIXED), "temperature": 0, "max_tokens": 200}
    whole = api.call("completions.create", **ask, logprobs=2)
    _strict(Completion, whole)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == (MIXED, "stop")
    assert len(whole.choices[0].logprobs.tokens) == whole.usage.completion_tokens
    usage = {"include_usage": True}
    *chunks, last = api.items("completions.create", **ask, stream=True, stream_options=usage)
    _strict(Completion, *chunks, last)
    assert "".join(chunk.choices[0].text for chunk in chunks) == MIXED
    assert last.choices == [] and last.usage.total_tokens == whole.usage.total_tokens


def test_completions_of_several_prompts(api: Api) -> None:
    prompts = [_prompt("one"), _prompt("two")]
    whole = api.call("completions.create", model="echo", prompt=prompts, temperature=0, n=2)
    _strict(Completion, whole)
    assert [choice.text for choice in whole.choices] == ["one", "one", "two", "two"]


def test_embeddings(api: Api) -> None:
    """The SDK asks for base64 by itself and gives back floats."""
    texts = ["red apples", MIXED]
    default = api.call("embeddings.create", model="vec", input=texts)
    floats = api.call("embeddings.create", model="vec", input=texts, encoding_format="float")
    _strict(CreateEmbeddingResponse, default, floats)
    for one, other in zip(default.data, floats.data, strict=True):
        assert len(one.embedding) == 48 and one.index == other.index
        assert one.embedding == pytest.approx(other.embedding, abs=1e-7)
        assert math.hypot(*one.embedding) == pytest.approx(1, abs=1e-3)
    short = api.call("embeddings.create", model="vec", input="red apples", dimensions=8)
    assert len(short.data[0].embedding) == 8


def test_models(api: Api) -> None:
    models = {model.id: model for model in api.items("models.list")}
    _strict(Model, *models.values())
    assert list(models) == ["echo", "org/echo", "vec"]
    for name, model in models.items():
        assert api.call("models.retrieve", name) == model
    whole = api.call("chat.completions.create", **_ask("Hi") | {"model": "org/echo"})
    assert (whole.model, whole.choices[0].message.content) == ("org/echo", "Hi")


@pytest.mark.parametrize(
    ("path", "ask", "error", "code", "param"),
    [
        ("chat", {"model": "gpt-9"}, openai.NotFoundError, "model_not_found", None),
        (
            "chat",
            {"modalities": ["audio"]},
            openai.BadRequestError,
            "unsupported_parameter",
            "modalities",
        ),
        (
            "chat",
            {"messages": [{"role": "user", "content": "x" * 5000}]},
            openai.BadRequestError,
            "context_length_exceeded",
            "messages",
        ),
        (
            "chat",
            {"temperature": 2.5},
            openai.BadRequestError,
            "decimal_above_max_value",
            "temperature",
        ),
        ("chat", {"messages": []}, openai.BadRequestError, "empty_array", "messages"),
        ("embeddings", {"input": []}, openai.BadRequestError, "empty_array", "input"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_errors(
    api: Api,
    path: str,
    ask: dict[str, Any],
    error: type[openai.APIStatusError],
    code: str,
    param: str | None,
) -> None:
    streams = [False, True] if path == "chat" else [None]
    for stream in streams:
        with pytest.raises(openai.APIStatusError) as caught:
            if stream is None:
                api.call("embeddings.create", **{"model": "vec", **ask})
            else:
                api.call("chat.completions.create", **_ask("Hi", stream=stream) | ask)
        assert type(caught.value) is error
        assert (caught.value.code, caught.value.param) == (code, param)
        assert caught.value.type == "invalid_request_error" and caught.value.request_id


def test_a_model_that_is_not_there(api: Api) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        api.call("models.retrieve", "org/other")
    assert (caught.value.code, caught.value.param) == ("model_not_found", None)
