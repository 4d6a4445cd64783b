"""Whole answers and the frames of streams: what the SDK's own types accept, and nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from server.core.config import ModelFacts
from server.core.types import Scored, TokenLogprob, Usage
from server.schemas.chat_answer import AnswerShape, Call, Choice, Ended, chat_body
from server.schemas.chat_frames import ChatFrames
from server.schemas.common import new_id, usage_body
from server.schemas.completions import CompletionFrames, Piece
from server.schemas.errors import error_body, error_frame
from server.schemas.head import AnswerHead
from server.schemas.models import model_body, models_body
from server.schemas.output import CallArguments, CallStart, Content, Reasoning
from tests.fakes import model_info

HEAD = AnswerHead("chatcmpl-1", 1741569952, "m", "fp_x")
PLAIN, TOOLS = AnswerShape(), AnswerShape(tools=True)
LEGACY, SCORED = AnswerShape(tools=True, legacy=True), AnswerShape(logprobs=True)
WITH_USAGE = AnswerShape(include_usage=True)

TEXT = 'Hello 🦊 \u2028\x85\x00"\\'
SCORE = TokenLogprob(
    Scored(7, "Hé", "Hé".encode(), -0.5),
    (Scored(7, "Hé", "Hé".encode(), -0.5), Scored(8, "\ufffd", b"\xf0\x9f", float("-inf"))),
    0,
)
CALLS = [Call("call_1", "f", "{}"), Call("call_2", "g", '{"a": 1}')]


def _body(*choices: Choice, shape: AnswerShape = PLAIN) -> dict[str, Any]:
    """Of the JSON that goes out, once the SDK accepts it strictly."""
    text = json.dumps(chat_body(HEAD, list(choices), shape), allow_nan=False)
    ChatCompletion.model_validate_json(text, strict=True)
    body: dict[str, Any] = json.loads(text)
    return body


def _chunk(frame: bytes) -> dict[str, Any]:
    """Of a frame that is one line of ASCII and a chunk to the SDK."""
    assert frame.startswith(b"data: {") and frame.endswith(b"}\n\n")
    assert frame.count(b"\n") == 2 and frame.isascii(), "one line"
    ChatCompletionChunk.model_validate_json(frame[6:], strict=True)
    chunk: dict[str, Any] = json.loads(frame[6:])
    assert (chunk["id"], chunk["created"], chunk["model"]) == ("chatcmpl-1", 1741569952, "m")
    assert chunk["system_fingerprint"] == "fp_x"
    return chunk


def test_a_text_is_what_the_sdk_calls_a_chat_completion() -> None:
    body = _body(
        Choice(TEXT, ended=Ended("stop", Usage(19, 4, 10))),
        Choice("", ended=Ended("length", Usage(19, 19, 3))),
    )
    first, second = body["choices"]
    assert first["message"] == {
        "role": "assistant",
        "content": TEXT,
        "refusal": None,
        "annotations": [],
    }
    assert (first["index"], first["finish_reason"], first["logprobs"]) == (0, "stop", None)
    assert (second["index"], second["finish_reason"]) == (1, "length")
    assert second["message"]["content"] == ""


def test_an_answer_of_calls_has_no_content() -> None:
    ended = Ended("tool_calls", Usage(1, 0, 1), calls=2)
    (choice,) = _body(Choice(calls=CALLS, ended=ended), shape=TOOLS)["choices"]
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": '{"a": 1}'}},
    ]
    assert "function_call" not in choice["message"]


def test_a_legacy_call_is_a_function_call() -> None:
    ended = Ended("function_call", Usage(1, 0, 1), calls=1)
    (choice,) = _body(Choice("So: ", calls=CALLS[1:], ended=ended), shape=LEGACY)["choices"]
    assert choice["message"]["function_call"] == {"name": "g", "arguments": '{"a": 1}'}
    assert (choice["message"]["content"], choice["finish_reason"]) == ("So: ", "function_call")
    assert "tool_calls" not in choice["message"]


def test_reasoning_has_one_field_and_is_counted() -> None:
    ended = Ended("stop", Usage(5, 0, 4), reasoning_tokens=3)
    body = _body(Choice("7", "3 and 4", ended=ended), Choice("7", ended=ended))
    thought, silent = (choice["message"] for choice in body["choices"])
    assert thought["reasoning_content"] == "3 and 4" and "reasoning" not in thought
    assert "reasoning_content" not in silent
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 6


def test_scores_are_the_tokens_with_their_bytes_and_no_infinity() -> None:
    ended = Ended("stop", Usage(1, 0, 1))
    (choice,) = _body(Choice("Hé", scores=[SCORE], ended=ended), shape=SCORED)["choices"]
    assert choice["logprobs"] == {
        "content": [
            {
                "token": "Hé",
                "logprob": -0.5,
                "bytes": [72, 195, 169],
                "top_logprobs": [
                    {"token": "Hé", "logprob": -0.5, "bytes": [72, 195, 169]},
                    {"token": "\ufffd", "logprob": -9999.0, "bytes": [240, 159]},
                ],
            }
        ],
        "refusal": None,
    }


def test_the_prompt_of_several_choices_counts_once() -> None:
    usage = usage_body([Usage(19, 4, 10), Usage(19, 19, 3)])
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (19, 13)
    assert usage["total_tokens"] == 32
    assert usage["prompt_tokens_details"]["cached_tokens"] == 4


def test_deltas_hold_only_what_is_new() -> None:
    frames = ChatFrames(HEAD, PLAIN, 2)
    made = [
        frames.role(1),
        frames.part(1, Reasoning(TEXT)),
        frames.part(1, Content(TEXT, 0)),
        frames.idle(),
        frames.finish(1, Ended("stop", Usage(1, 0, 1))),
    ]
    choices = [choice for frame in made for choice in _chunk(frame)["choices"]]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": TEXT},
        {"content": TEXT},
        {},
        {},
    ]
    assert [choice["index"] for choice in choices] == [1, 1, 1, 0, 1]
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["stop"]
    assert all(choice["logprobs"] is None for choice in choices)
    assert frames.usage([Usage(1, 0, 1)], 0) == b""


def test_a_sign_of_life_is_of_a_choice_that_goes_on() -> None:
    frames, ended = ChatFrames(HEAD, PLAIN, 3), Ended("stop", Usage(1, 0, 1))
    signs = [frames.idle()]
    for index in (0, 2, 1):
        frames.finish(index, ended)
        signs.append(frames.idle())
    assert [_chunk(sign)["choices"][0]["index"] for sign in signs[:3]] == [0, 1, 1]
    assert signs[3] == b""
    texts = CompletionFrames(HEAD, 2, include_usage=False)
    signs = [texts.idle(), texts.piece(Piece(0, reason="stop")), texts.idle()]
    choices = [json.loads(sign[6:])["choices"][0] for sign in signs]
    assert [(choice["index"], choice["text"]) for choice in choices] == [(0, ""), (0, ""), (1, "")]
    texts.piece(Piece(1, reason="length"))
    assert texts.idle() == b""


def test_a_call_is_named_once() -> None:
    frames = ChatFrames(HEAD, TOOLS, 1)
    made = [
        frames.role(0),
        frames.part(0, CallStart(1, "call_9", "f")),
        frames.part(0, CallArguments(1, '{"a": "🦊"}')),
        frames.finish(0, Ended("tool_calls", Usage(1, 0, 1))),
    ]
    assert [_chunk(frame)["choices"][0]["delta"] for frame in made] == [
        {"role": "assistant", "content": None},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "call_9",
                    "type": "function",
                    "function": {"name": "f", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 1, "function": {"arguments": '{"a": "🦊"}'}}]},
        {},
    ]


def test_a_legacy_call_is_streamed_as_one() -> None:
    frames = ChatFrames(HEAD, LEGACY, 1)
    made = [frames.part(0, CallStart(0, "call_9", "f")), frames.part(0, CallArguments(0, "{}"))]
    assert [_chunk(frame)["choices"][0]["delta"] for frame in made] == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
    ]


def test_scores_ride_with_their_text() -> None:
    frames = ChatFrames(HEAD, SCORED, 1)
    (choice,) = _chunk(frames.part(0, Content("Hé", 0), (SCORE,)))["choices"]
    (whole,) = _body(
        Choice("Hé", scores=[SCORE], ended=Ended("stop", Usage(1, 0, 1))), shape=SCORED
    )["choices"]
    assert choice["logprobs"] == whole["logprobs"]
    for frame in (frames.role(0), frames.part(0, Reasoning("x"))):
        assert _chunk(frame)["choices"][0]["logprobs"] is None


def test_the_usage_frame_has_no_choices_and_no_other_frame_has_usage() -> None:
    frames = ChatFrames(HEAD, WITH_USAGE, 1)
    ended = Ended("stop", Usage(19, 4, 10))
    before = [frames.role(0), frames.part(0, Content("x", 0)), frames.finish(0, ended)]
    assert [_chunk(frame)["usage"] for frame in before] == [None] * 3
    last = _chunk(frames.usage([ended.usage], 2))
    assert last["choices"] == []
    assert last["usage"] == usage_body([ended.usage], 2)
    assert "usage" not in _chunk(ChatFrames(HEAD, PLAIN, 1).role(0))


@pytest.mark.parametrize(
    "character", ["\u2028", "\u2029", "\x85", "\n", "\r", "\x0b", "\x1c", "🦊"]
)
def test_what_would_break_a_line_is_escaped(character: str) -> None:
    frames = ChatFrames(HEAD, TOOLS, 1)
    parts = (Content(character, 0), Reasoning(character), CallArguments(0, character))
    for frame in [frames.part(0, part) for part in parts]:
        assert frame.isascii()
        assert len(frame.decode().splitlines()) == 2


def test_a_head_with_any_model_name_stays_one_line() -> None:
    head = AnswerHead("chatcmpl-1", 1, 'a"b\n\u2028', "fp")
    frame = ChatFrames(head, PLAIN, 1).role(0)
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
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]{24}", AnswerHead.new("chatcmpl-", "m", "fp").id)
    assert len({new_id("x") for _ in range(100)}) == 100


def test_models_say_what_they_hold() -> None:
    body = models_body(
        [
            model_body("m", "m", 5, model_info(), (), ModelFacts(), "loaded"),
            model_body("n", "n", 5, None, (), ModelFacts(quantisation="Q4_0"), "loading"),
        ]
    )
    assert body["object"] == "list"
    known, loading = body["data"]
    required = {"id": "m", "object": "model", "created": 5, "owned_by": "ingle"}
    assert required.items() <= known.items()
    assert known["context_length"] == known["meta"]["n_ctx"] == 1024
    assert known["status"] == {"value": "loaded"} and loading["status"] == {"value": "loading"}
    assert loading["meta"]["quantisation"] == "Q4_0" and "n_ctx" not in loading["meta"]
