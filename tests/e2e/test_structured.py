"""Tools, schemas and scores through the real SDK, on engines that echo what a grammar lets them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable
from itertools import pairwise
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from .conftest import Server, Start

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
NAMED = {"type": "function", "function": {"name": "clock"}}


def _ask(text: str, **more: Any) -> dict[str, Any]:
    """Greedy, so that the echo is the text itself as far as it may be."""
    messages = [{"role": "user", "content": text}]
    return {"model": "echo", "messages": messages, "temperature": 0, "max_tokens": 300, **more}


def _both(client: openai.OpenAI, **ask: Any) -> ChatCompletion:
    """A whole answer, once the SDK's own accumulator makes the same of the stream."""
    whole = client.chat.completions.create(**ask)
    ChatCompletion.model_validate_json(whole.model_dump_json(exclude_unset=True), strict=True)
    with client.chat.completions.stream(**ask) as stream:
        final = stream.get_final_completion()
    for one, other in zip(whole.choices, final.choices, strict=True):
        assert one.finish_reason == other.finish_reason
        assert (one.message.content or "") == (other.message.content or "")
        assert _calls(one) == _calls(other)
        assert one.logprobs == other.logprobs
    return whole


def _calls(choice: Any) -> list[tuple[str, Any]]:
    calls = choice.message.tool_calls or []
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


def test_a_call_the_model_makes_is_a_call(client: openai.OpenAI) -> None:
    (choice,) = _both(client, **_ask(CALL, tools=[WEATHER, CLOCK])).choices
    assert _calls(choice) == [("weather", {"city": "Rome"})]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)


def test_text_beside_tools_is_text(client: openai.OpenAI) -> None:
    (choice,) = _both(client, **_ask("It is sunny.", tools=[WEATHER])).choices
    assert (choice.finish_reason, choice.message.content) == ("stop", "It is sunny.")
    assert choice.message.tool_calls is None


@pytest.mark.parametrize("text", ["Hello", CALL, "{", ""])
@pytest.mark.parametrize("choice", ["required", NAMED], ids=str)
def test_a_call_that_is_required_comes_whatever_the_model_wants(
    client: openai.OpenAI, text: str, choice: Any
) -> None:
    ask = _ask(text or " ", tools=[WEATHER, CLOCK], tool_choice=choice)
    (found,) = _both(client, **ask).choices
    calls = _calls(found)
    assert calls and not found.message.content
    assert found.finish_reason == "tool_calls"
    if choice == NAMED:
        assert [name for name, _ in calls] == ["clock"]
    for name, arguments in calls:
        assert isinstance(arguments, dict)
        assert name != "weather" or isinstance(arguments["city"], str)


@pytest.mark.parametrize("limit", [1, 5, 30])
def test_half_a_call_is_none(client: openai.OpenAI, limit: int) -> None:
    ask = _ask(CALL, tools=[WEATHER], tool_choice="required") | {"max_tokens": limit}
    (choice,) = client.chat.completions.create(**ask).choices
    assert choice.finish_reason == "length"
    assert (choice.message.tool_calls, choice.message.content) == (None, "")


class City(BaseModel):
    name: str
    people: int
    twins: list[str]


@pytest.mark.parametrize("text", ['{"name": "Rome", "people": 7, "twins": []}', "Hello!", "{}{}"])
def test_an_answer_always_fits_its_schema(client: openai.OpenAI, text: str) -> None:
    parsed = client.chat.completions.parse(**_ask(text, response_format=City))
    message = parsed.choices[0].message
    assert message.parsed is not None and parsed.choices[0].finish_reason == "stop"
    if text.startswith('{"name"'):
        assert message.content == text
    with client.chat.completions.stream(**_ask(text, response_format=City)) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == message.parsed


def test_an_answer_that_is_cut_off_is_known_to_be(client: openai.OpenAI) -> None:
    ask = _ask("Hello!", response_format=City) | {"max_tokens": 4}
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**ask)


@pytest.mark.parametrize(
    ("extra", "text", "expected"),
    [
        ({"guided_choice": ["yes", "no"]}, "yes", "yes"),
        ({"guided_regex": "[a-c]{3}"}, "abc", "abc"),
        ({"grammar": 'root ::= "a" [0-9]+ "b"'}, "a12b", "a12b"),
        ({"structured_outputs": {"choice": ["left", "right"]}}, "right", "right"),
    ],
    ids=str,
)
def test_other_spellings_bind_the_answer(
    client: openai.OpenAI, extra: dict[str, Any], text: str, expected: str
) -> None:
    for said in (text, text + " and more"):
        answer = client.chat.completions.create(**_ask(said), extra_body=extra)
        assert answer.choices[0].message.content == expected
        assert answer.choices[0].finish_reason == "stop"


_CITY = '{"name": "Rome", "people": 7, "twins": ["Oslo, Norway"]}'
_BOUND = [
    ({"json_schema": City.model_json_schema()}, _CITY),
    ({"guided_choice": ["yes, sir", "yes, madam"]}, "yes, sir"),
    ({"grammar": 'root ::= [a-z]+ ", " [a-z]+ "!"'}, "well, then!"),
]


@pytest.mark.parametrize(
    "ends", [{"stop": [","]}, {"extra_body": {"stop_token_ids": [44]}}], ids=str
)
@pytest.mark.parametrize(("bound", "said"), _BOUND, ids=["schema", "choice", "grammar"])
def test_no_stop_cuts_what_must_be_whole(
    client: openai.OpenAI, bound: dict[str, Any], said: str, ends: dict[str, Any]
) -> None:
    extra = {"extra_body": {**bound, **ends.get("extra_body", {})}}
    (choice,) = _both(client, **_ask(said, **ends | extra)).choices
    assert (choice.message.content, choice.finish_reason) == (said, "stop")
    prompt = f"<|turn|>user\n{said}<|end|><|turn|>assistant\n"
    ask: dict[str, Any] = {"prompt": prompt, "temperature": 0, "max_tokens": 300, **ends, **extra}
    (text,) = client.completions.create(model="echo", **ask).choices
    assert (text.text, text.finish_reason) == (said, "stop")
    streamed = list(client.completions.create(model="echo", stream=True, **ask))
    assert "".join(frame.choices[0].text for frame in streamed) == said


@pytest.mark.parametrize(
    "ends", [{"stop": ["}"]}, {"extra_body": {"stop_token_ids": [125]}}], ids=str
)
def test_no_stop_cuts_a_call_that_is_required(client: openai.OpenAI, ends: dict[str, Any]) -> None:
    (choice,) = _both(client, **_ask(CALL, tools=[WEATHER], tool_choice="required", **ends)).choices
    assert _calls(choice) == [("weather", {"city": "Rome"})]


@pytest.mark.parametrize("stop", ["{", "\n", '"Rome', "}", "`"])
@pytest.mark.parametrize("bare", ["{}", "```json\n{}\n```"], ids=["bare", "fenced"])
def test_no_stop_cuts_a_call_without_its_tags(client: openai.OpenAI, bare: str, stop: str) -> None:
    text = bare.replace("{}", '{"name": "weather", "arguments": {"city": "Rome"}}')
    (choice,) = _both(client, **_ask(text, tools=[WEATHER], stop=stop)).choices
    assert _calls(choice) == [("weather", {"city": "Rome"})]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)


@pytest.mark.parametrize("k", [0, 5, 20])
def test_scores_are_of_every_visible_token(client: openai.OpenAI, k: int) -> None:
    ask = _ask("Hé 🦊 STOP it", logprobs=True, top_logprobs=k, stop=["STOP"])
    (choice,) = _both(client, **ask).choices
    assert choice.logprobs is not None and choice.logprobs.content is not None
    entries = choice.logprobs.content
    assert b"".join(bytes(e.bytes or ()) for e in entries).decode() == choice.message.content
    assert choice.message.content == "Hé 🦊 "
    assert all(len(e.top_logprobs) == k for e in entries)
    assert all(-9999 <= e.logprob <= 0 for e in entries)


def test_scores_beside_a_streamed_call(client: openai.OpenAI) -> None:
    ask = _ask(f"So: {CALL}", tools=[WEATHER], logprobs=True)
    (choice,) = _both(client, **ask).choices
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert "".join(e.token for e in choice.logprobs.content) == (choice.message.content or "")
    assert _calls(choice) == [("weather", {"city": "Rome"})]


def test_a_conversation_with_a_tool_goes_on(client: openai.OpenAI) -> None:
    """The answer's message goes back as the SDK has it."""
    first = client.chat.completions.create(**_ask(CALL, tools=[WEATHER]))
    message = first.choices[0].message
    assert message.tool_calls
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    ask = _ask(CALL, tools=[WEATHER])
    messages = [*ask["messages"], message.model_dump(), result]
    second = client.chat.completions.create(**ask | {"messages": messages})
    assert second.choices[0].message.content == "sunny"


def test_functions_are_answered_as_they_were_asked(client: openai.OpenAI) -> None:
    ask = _ask(CALL, functions=[WEATHER["function"]])
    (choice,) = client.chat.completions.create(**ask).choices
    call = choice.message.function_call
    assert call is not None and call.name == "weather"
    assert json.loads(call.arguments) == {"city": "Rome"}
    assert (choice.finish_reason, choice.message.tool_calls) == ("function_call", None)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_cannot_enforce_is_refused_before_the_headers(
    client: openai.OpenAI, stream: bool
) -> None:
    """Only the engine knows how many tokens its model has."""
    grammar = "root ::= <[99999]>"
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(
            **_ask("Hi", stream=stream), extra_body={"guided_grammar": grammar}
        )
    assert (refusal.value.code, refusal.value.param) == ("invalid_grammar", "guided_grammar")


def _too_large(number: int) -> dict[str, Any]:
    """Each takes the compiler longer than any grammar may."""
    properties = {f"p{number}_{i}": {"type": "string"} for i in range(5000)}
    schema = {"type": "object", "properties": properties}
    return {"type": "json_schema", "json_schema": {"name": "large", "schema": schema}}


async def _timed(request: Awaitable[Any]) -> tuple[float, Any]:
    started = time.monotonic()
    (answer,) = await asyncio.gather(request, return_exceptions=True)
    return time.monotonic() - started, answer


Timed = list[tuple[float, Any]]


def _sent(client: openai.AsyncOpenAI, asks: list[dict[str, Any]]) -> asyncio.Future[Timed]:
    """All at once; what came of each, and after how many seconds."""
    requests = (_timed(client.chat.completions.create(**ask)) for ask in asks)
    return asyncio.ensure_future(asyncio.gather(*requests))


async def _beside(
    client: openai.AsyncOpenAI, hostile: asyncio.Future[Timed], *asks: dict[str, Any]
) -> list[float]:
    """How long these took, one after the other until the hostile ones are all answered."""
    took = []
    while not hostile.done():
        for ask in asks:
            seconds, answer = await _timed(client.chat.completions.create(**ask))
            assert answer.choices[0].message.content == "yes"
            took.append(seconds)
    return took[: -len(asks)]


async def _gaps(client: openai.AsyncOpenAI, hostile: asyncio.Future[Timed]) -> list[float]:
    """Between the chunks of a stream, until the hostile ones are all answered."""
    ask = _ask("many words " * 50, max_tokens=500, stream=True)
    at = []
    async for _ in await client.chat.completions.create(**ask):
        at.append(time.monotonic())
        if hostile.done():
            break
    return [after - before for before, after in pairwise(at)]


def _check_refused(error: Any) -> None:
    assert isinstance(error, openai.APIStatusError)
    known = {(400, "invalid_grammar"), (503, "server_overloaded")}
    assert (error.status_code, error.code) in known
    assert error.status_code == 400 or 1 <= int(error.response.headers["retry-after"]) <= 60


async def test_hostile_schemas_hold_up_nobody_and_not_one_another(start: Start) -> None:
    server = start("echo=echo:rate=50", max_waiting_tokens=10**8)
    known = _ask("yes", extra_body={"guided_choice": ["yes", "no"]})
    async with server.async_client() as client, asyncio.timeout(60):
        await client.chat.completions.create(**known)
        hostile = _sent(client, [_ask("x", response_format=_too_large(i)) for i in range(6)])
        took, gaps = await asyncio.gather(
            _beside(client, hostile, _ask("yes"), known), _gaps(client, hostile)
        )
        refused = await hostile
    for _, error in refused:
        _check_refused(error)
    tried = [seconds for seconds, error in refused if error.status_code == 400]
    assert len(tried) >= 2
    one = min(tried)
    assert max(seconds for seconds, _ in refused) < 2 * one, "they waited for one another"
    assert len(took) > 5 and max(took) < one, "the others waited for them"
    assert len(gaps) > 20 and max(gaps) < one / 2, "the stream waited for them"


async def test_grammars_that_are_hard_to_read_hold_up_no_plain_request(start: Start) -> None:
    """Each takes the API process half a second; together they had every thread it has."""
    server = start()
    tangles = [f'root ::= "{i}" ' + "(" * 25 + '"a" root "b"' + ")*" * 25 for i in range(16)]
    async with server.async_client() as client, asyncio.timeout(60):
        asks = [_ask("x", extra_body={"grammar": tangle}, max_tokens=1) for tangle in tangles]
        hostile = _sent(client, asks)
        took = await _beside(client, hostile, _ask("yes"))
        answers = await hostile
    refused = [answer for _, answer in answers if isinstance(answer, Exception)]
    for error in refused:
        _check_refused(error)
    assert len(refused) > len(tangles) / 2
    seconds = max(seconds for seconds, _ in answers)
    assert len(took) > 5 and max(took) < seconds / 2, "the others waited for them"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_grammar_that_gets_stuck_is_the_clients_to_mend(server: Server, path: str) -> None:
    """No check in advance finds every one; a retry would find it again."""
    said = "a" * 300
    prompt = f"<|turn|>user\n{said}<|end|><|turn|>"
    body = _ask(said) if "chat" in path else {"model": "echo", "prompt": prompt, "temperature": 0}
    body |= {"guided_regex": "[a-z]{1,30}" * 300, "max_tokens": 500}
    refused = httpx2.post(server.base + path, json=body)
    error = refused.json()["error"]
    assert refused.status_code == 400
    assert (error["code"], error["param"]) == ("invalid_grammar", "guided_regex")
    assert "could not be followed" in error["message"]
    # Slowly, or it may be known before the headers.
    slow = body | {"stream": True, "model": "slow"}
    stream = httpx2.post(server.base + path, json=slow, timeout=30)
    *_, last, done, _ = stream.text.split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"] == error
    assert done == "data: [DONE]"


def test_properties_beyond_measure_are_refused_before_the_headers(client: openai.OpenAI) -> None:
    properties = {f"p{i}": {"type": "string"} for i in range(1000)}
    schema = {"type": "object", "properties": properties}
    form = {"type": "json_schema", "json_schema": {"name": "wide", "schema": schema}}
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(**_ask("Hi", stream=True, response_format=form))
    assert (refusal.value.code, refusal.value.param) == ("invalid_grammar", "response_format")
