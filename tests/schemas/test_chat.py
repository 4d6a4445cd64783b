"""Chat on the wire: what a request may say, and answers that the SDK's own types accept."""

from __future__ import annotations

import json
import re

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import ValidationError

from server.api.errors import body_of, invalid_body
from server.core.errors import InvalidRequest, UnsupportedParameter
from server.core.types import Usage
from server.schemas.chat import ChatFrames, ChatHead, ChatRequest, Choice, Message, chat_body
from server.schemas.common import MAX_STOPS, new_id, usage_body
from server.schemas.errors import error_body, error_frame
from server.schemas.models import model_body, models_body
from tests.fakes import model_info

HI = [{"role": "user", "content": "Hi"}]
HEAD = ChatHead("chatcmpl-1", 1741569952, "m", "fp_x")


def _parsed(**body: object) -> ChatRequest:
    return ChatRequest.model_validate_json(json.dumps({"messages": HI, **body}))


def _refusal(**body: object) -> tuple[str | None, str | None]:
    """The code and the param of the error a body is answered with."""
    try:
        request = _parsed(**body)
        request.check_refused()
        request.sampling({}, 0)
        for i, message in enumerate(request.messages):
            message.text(f"messages[{i}]")
    except ValidationError as error:
        refusal = invalid_body(error)
    except InvalidRequest as error:
        refusal = error
    else:
        pytest.fail("it was accepted")
    assert set(body_of(refusal)["error"]) == {"message", "type", "param", "code"}
    assert refusal.message
    return refusal.error_code, refusal.param


OPTIONAL = {
    *(name for name in ChatRequest.model_fields if name != "messages"),
    *ChatRequest.refused,
    *("user", "metadata", "store", "service_tier", "prediction", "verbosity", "seed"),
}


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_null_is_absent(name: str) -> None:
    request, absent = _parsed(**{name: None}), _parsed()
    request.check_refused()
    assert request.sampling({}, 0) == absent.sampling({}, 0)
    assert request.token_limit() == absent.token_limit()
    assert (request.stops(), request.include_usage) == ((), False)
    assert request.ignored_fields() == []


def test_what_is_left_open_has_openais_defaults() -> None:
    sampling = _parsed().sampling({}, 0)
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 1.0, 0)
    assert sampling.seed is None
    assert _parsed().token_limit() is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("temperature", v) for v in (0, 0.0, 2, 1.5)],
        *[("top_p", v) for v in (0, 1, 0.5)],
        *[("min_p", v) for v in (0, 1)],
        *[("top_k", v) for v in (-1, 0, 40)],
        *[(name, v) for name in ("frequency_penalty", "presence_penalty") for v in (-2, 0, 2)],
        *[(name, 1.1) for name in ("repeat_penalty", "repetition_penalty")],
        *[("seed", v) for v in (-(2**63), 2**63 - 1, -1, 0)],
        *[("max_tokens", v) for v in (1, -1, 100_000)],
        *[("stop", v) for v in ("x", [], ["a"] * 12, ["", "x"])],
        *[("logit_bias", v) for v in ({}, {"50256": -100}, {"1": 0.5})],
        *[("stream_options", v) for v in ({}, {"include_usage": True}, {"include_obfuscation": 0})],
        ("n", 1),
        ("tools", []),
        ("tool_choice", "none"),
        ("tool_choice", "auto"),
        ("response_format", {"type": "text"}),
        ("logprobs", False),
        ("modalities", ["text"]),
    ],
)
def test_values_in_range_are_accepted(field: str, value: object) -> None:
    request = _parsed(**{field: value})
    request.check_refused()
    request.sampling({}, 0)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("temperature", 2.1, "decimal_above_max_value"),
        ("temperature", -0.1, "decimal_below_min_value"),
        ("temperature", "0.5", "invalid_type"),
        ("temperature", True, "invalid_type"),
        ("top_p", 1.1, "decimal_above_max_value"),
        ("top_p", -1, "integer_below_min_value"),
        ("min_p", 2, "integer_above_max_value"),
        ("top_k", -2, "integer_below_min_value"),
        ("top_k", 1.5, "invalid_type"),
        ("frequency_penalty", 3, "integer_above_max_value"),
        ("presence_penalty", -2.5, "decimal_below_min_value"),
        ("repeat_penalty", 0, "integer_below_min_value"),
        ("seed", 2**63, "integer_above_max_value"),
        ("seed", 1.5, "invalid_type"),
        ("n", 0, "integer_below_min_value"),
        ("max_tokens", 0, "integer_below_min_value"),
        ("max_tokens", "7", "invalid_type"),
        ("max_tokens", True, "invalid_type"),
        ("max_completion_tokens", -2, "integer_below_min_value"),
        ("stop", 5, "invalid_type"),
        ("stop", ["x"] * (MAX_STOPS + 1), "array_above_max_length"),
        ("logit_bias", {"x": 1}, "invalid_value"),
        ("logit_bias", {"-5": 1}, "invalid_value"),
        ("logit_bias", {"٣": 1}, "invalid_value"),
        ("logit_bias", {"1": 101}, "integer_above_max_value"),
        ("logit_bias", [1], "invalid_type"),
        ("stream", "true", "invalid_type"),
        ("stream", 1, "invalid_type"),
        ("stream_options", {"include_usage": "yes"}, "invalid_type"),
        ("model", 5, "invalid_type"),
        ("temperature", float("nan"), "invalid_value"),
        ("logit_bias", {"1": float("inf")}, "invalid_value"),
        ("messages", [], "empty_array"),
        ("messages", "Hi", "invalid_type"),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: object, code: str) -> None:
    found, param = _refusal(**{field: value})
    assert found == code
    assert param is not None and re.match(rf"{field}($|[.\[])", param)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ValidationError) as refusal:
        ChatRequest.model_validate_json("{}")
    error = invalid_body(refusal.value)
    assert (error.error_code, error.param) == ("missing_required_parameter", "messages")


@pytest.mark.parametrize("body", ["", "{", "[]", "42", "null", '"x"', '{"a":"\\ud800"}'])
def test_what_is_no_json_object_is_refused_without_a_field(body: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        ChatRequest.model_validate_json(body)
    error = invalid_body(refusal.value)
    assert (error.error_code, error.param) == (None, None)
    assert "JSON" in error.message


@pytest.mark.parametrize("bad", [b'{"messages": "\xff"}', b"\xfe\xff"])
def test_what_is_no_utf8_is_refused(bad: bytes) -> None:
    with pytest.raises(ValidationError) as refusal:
        ChatRequest.model_validate_json(bad)
    assert invalid_body(refusal.value).param is None


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": -1}, 5),
        ({"max_tokens": -1}, None),
    ],
)
def test_the_newer_limit_wins(body: dict[str, object], limit: int | None) -> None:
    assert _parsed(**body).token_limit() == limit


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "top_k"])
@pytest.mark.parametrize("value", [2**31, 2**63, 10**30])
def test_limits_beyond_any_context_are_no_limits(field: str, value: int) -> None:
    """Clients send such to say "as much as there is"; it must not overflow on its way."""
    request = _parsed(**{field: value})
    assert (request.token_limit() or 1) < 2**31
    assert request.sampling({}, 0).top_k < 2**31


@pytest.mark.parametrize(
    ("stop", "stops"),
    [("x", ("x",)), ([], ()), (["a", "", "b"], ("a", "b")), ("", ()), (None, ())],
)
def test_stop_has_many_forms(stop: object, stops: tuple[str, ...]) -> None:
    assert _parsed(stop=stop).stops() == stops


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("top_logprobs", 5),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("grammar", 'root ::= "x"'),
        ("json_schema", {}),
        ("chat_template_kwargs", {"enable_thinking": False}),
        ("continue_final_message", True),
        ("mirostat", 2),
        ("ignore_eos", True),
        ("min_tokens", 5),
    ],
)
def test_what_is_not_served_is_refused_by_name(field: str, value: object) -> None:
    assert _refusal(**{field: value}) == ("unsupported_parameter", field)


def test_what_is_ignored_is_listed_and_nothing_else_is() -> None:
    request = _parsed(user="u", cache_prompt=True, metadata={}, store=None, tools=[], temperature=1)
    assert request.ignored_fields() == ["cache_prompt", "metadata", "user"]
    with pytest.raises(UnsupportedParameter):
        _parsed(logprobs=True).check_refused()


@pytest.mark.parametrize(
    ("seed", "choice", "expected"),
    [(None, 1, None), (-1, 1, None), (7, 2, 9), (-2, 0, 2**32 - 2), (2**32 - 1, 1, 0)],
)
def test_any_seed_fits_in_32_bits(seed: int | None, choice: int, expected: int | None) -> None:
    assert _parsed(seed=seed).sampling({}, choice).seed == expected


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "user", "content": "Hi"}, "Hi"),
        ({"role": "user", "content": None}, ""),
        ({"role": "user", "content": [{"type": "text", "text": "a"}] * 2}, "a\na"),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, ""),
        ({"role": "assistant", "content": None, "refusal": "no"}, ""),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, "no"),
        ({"role": "tool", "content": "r", "tool_call_id": "c", "name": "f"}, "r"),
        (
            {
                "role": "assistant",
                "content": "echoed",
                "refusal": None,
                "annotations": [],
                "audio": None,
                "function_call": None,
                "tool_calls": None,
                "reasoning_content": None,
                "parsed": None,
                "extra_field": 1,
            },
            "echoed",
        ),
    ],
)
def test_messages_are_read_as_clients_send_them(message: dict[str, object], text: str) -> None:
    request = _parsed(messages=[message])
    assert request.messages[0].text("messages[0]") == text


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"role": "user"}, "missing_required_parameter", "messages[1].content"),
        ({"role": "assistant"}, "missing_required_parameter", "messages[1].content"),
        ({"content": "Hi"}, "missing_required_parameter", "messages[1].role"),
        ({"role": "king", "content": "Hi"}, "invalid_value", "messages[1].role"),
        ({"role": "user", "content": 123}, "invalid_type", "messages[1].content"),
        ({"role": "user", "content": {}}, "invalid_type", "messages[1].content"),
        ({"role": "user", "content": []}, "empty_array", "messages[1].content"),
        (
            {"role": "user", "content": [{"type": "text"}]},
            "missing_required_parameter",
            "messages[1].content[0].text",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "unsupported_content",
            "messages[1].content[0]",
        ),
        (
            {"role": "user", "content": [{"text": "a"}]},
            "missing_required_parameter",
            "messages[1].content[0].type",
        ),
        ("Hi", "invalid_type", "messages[1]"),
    ],
)
def test_wrong_messages_are_refused_where_they_are(message: object, code: str, param: str) -> None:
    assert _refusal(messages=[*HI, message]) == (code, param)


def test_messages_are_not_changed_by_reading_them() -> None:
    with pytest.raises(ValidationError):
        Message(role="user", content="Hi").content = "other"


CHOICES = [
    Choice('Hello 🦊 \u2028\x85\x00"\\', "stop", Usage(19, 4, 10)),
    Choice("", "length", Usage(19, 19, 3)),
]


def test_the_body_is_what_the_sdk_calls_a_chat_completion() -> None:
    body = json.dumps(chat_body(HEAD, CHOICES))
    completion = ChatCompletion.model_validate_json(body, strict=True)
    assert completion.choices[0].message.content == CHOICES[0].text
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert [choice.finish_reason for choice in completion.choices] == ["stop", "length"]
    message = json.loads(body)["choices"][0]["message"]
    assert message["refusal"] is None
    assert "tool_calls" not in message and "function_call" not in message
    assert json.loads(body)["choices"][0]["logprobs"] is None


def test_the_prompt_of_several_choices_counts_once() -> None:
    usage = usage_body([Usage(19, 4, 10), Usage(19, 19, 3)])
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (
        19,
        13,
        32,
    )
    assert usage["prompt_tokens_details"]["cached_tokens"] == 4


def _frames(include_usage: bool) -> list[bytes]:
    frames = ChatFrames(HEAD, include_usage=include_usage)
    made = [frames.role(0), frames.content(0, CHOICES[0].text), frames.finish(0, "stop")]
    return [*made, frames.usage([Usage(19, 4, 10)])] if include_usage else made


@pytest.mark.parametrize("include_usage", [True, False])
def test_frames_are_what_the_sdk_calls_chunks(include_usage: bool) -> None:
    chunks = []
    for frame in _frames(include_usage):
        assert frame.startswith(b"data: {") and frame.endswith(b"}\n\n")
        assert frame.count(b"\n") == 2, "one line"
        assert frame.isascii()
        data = frame.removeprefix(b"data: ")
        chunks.append(ChatCompletionChunk.model_validate_json(data, strict=True))
        assert ("usage" in json.loads(data)) is include_usage
    assert chunks[1].choices[0].delta.content == CHOICES[0].text
    assert {(c.id, c.created, c.model, c.system_fingerprint) for c in chunks} == {
        ("chatcmpl-1", 1741569952, "m", "fp_x")
    }


def test_deltas_hold_only_what_is_new() -> None:
    role, content, finish = (json.loads(f[6:])["choices"][0] for f in _frames(False))
    assert role["delta"] == {"role": "assistant", "content": ""}
    assert list(content["delta"]) == ["content"]
    assert finish["delta"] == {}
    assert [c["finish_reason"] for c in (role, content, finish)] == [None, None, "stop"]


def test_the_usage_frame_has_no_choices_and_no_other_frame_has_usage() -> None:
    *others, last = (json.loads(frame[6:]) for frame in _frames(True))
    assert last["choices"] == []
    assert last["usage"] == usage_body([Usage(19, 4, 10)])
    assert [other["usage"] for other in others] == [None] * 3


@pytest.mark.parametrize(
    "character", ["\u2028", "\u2029", "\x85", "\n", "\r", "\x0b", "\x1c", "🦊"]
)
def test_what_would_break_a_line_is_escaped(character: str) -> None:
    frame = ChatFrames(HEAD, include_usage=False).content(0, character)
    assert frame.isascii()
    assert len(frame.decode().splitlines()) == 2
    assert json.loads(frame[6:])["choices"][0]["delta"]["content"] == character


def test_a_head_with_any_model_name_stays_one_line() -> None:
    head = ChatHead("chatcmpl-1", 1, 'a"b\n\u2028', "fp")
    frame = ChatFrames(head, include_usage=False).role(0)
    assert json.loads(frame[6:])["model"] == head.model
    assert frame.count(b"\n") == 2 and frame.isascii()


def test_an_error_in_a_stream_is_a_frame_of_its_own() -> None:
    frame = error_frame(error_body("it — died", "server_error", code="engine_error"))
    assert json.loads(frame.removeprefix(b"data: ")) == {
        "error": {
            "message": "it — died",
            "type": "server_error",
            "param": None,
            "code": "engine_error",
        }
    }
    assert frame.isascii() and frame.endswith(b"}\n\n")


def test_ids_are_long_and_never_the_same() -> None:
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]{24}", ChatHead.new("m", "fp").id)
    assert len({new_id("x") for _ in range(100)}) == 100


def test_models_say_what_they_hold() -> None:
    body = models_body(
        [model_body("m", "m", 5, model_info(), ()), model_body("l", "m", 5, None, ())]
    )
    assert body["object"] == "list"
    known, loading = body["data"]
    required = {"id": "m", "object": "model", "created": 5, "owned_by": "ingle"}
    assert required.items() <= known.items()
    assert known["context_length"] == known["meta"]["n_ctx"] == 1024
    assert "meta" not in loading


def test_a_list_of_nonsense_is_given_up_at_its_first_item() -> None:
    with pytest.raises(ValidationError) as refusal:
        ChatRequest.model_validate_json('{"messages": [' + "1," * 5000 + "1]}")
    assert refusal.value.error_count() == 1
