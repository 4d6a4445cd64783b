"""/v1/chat/completions on the wire: the whole answer, and what all its forms share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct, field

from server.core.types import Scored, TokenLogprob, Usage

from .common import finite, usage_body
from .head import AnswerHead

ChatFinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class AnswerShape(Struct, frozen=True):
    """What a request makes of the form of its answer. `tools`: it may call some."""

    tools: bool = False
    legacy: bool = False
    logprobs: bool = False
    include_usage: bool = False


class Call(Struct):
    """`arguments` is JSON text."""

    id: str
    name: str
    arguments: str = ""


class Ended(Struct, frozen=True):
    """How a choice ended; of its calls the first `calls` are complete."""

    reason: ChatFinishReason
    usage: Usage
    reasoning_tokens: int = 0
    calls: int = 0


class Choice(Struct):
    """One answer, as far as it came."""

    text: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    scores: list[TokenLogprob] = field(default_factory=list)
    ended: Ended | None = None


def chat_body(head: AnswerHead, choices: list[Choice], shape: AnswerShape) -> dict[str, Any]:
    ended = [choice.ended for choice in choices if choice.ended]
    return {
        **head.fields("chat.completion"),
        "choices": [
            {
                "index": index,
                "message": _message(choice, shape),
                "logprobs": logprobs_body(choice.scores) if shape.logprobs else None,
                "finish_reason": choice.ended.reason if choice.ended else None,
            }
            for index, choice in enumerate(choices)
        ],
        "usage": usage_body(
            [end.usage for end in ended], sum(end.reasoning_tokens for end in ended)
        ),
        "service_tier": "default",
    }


def _message(choice: Choice, shape: AnswerShape) -> dict[str, Any]:
    """Keys without a value are left out: an empty list of calls is true to JavaScript."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": choice.text or (None if choice.calls else ""),
        "refusal": None,
        "annotations": [],
    }
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if choice.calls and shape.legacy:
        message["function_call"] = _function(choice.calls[0])
    elif choice.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": _function(call)}
            for call in choice.calls
        ]
    return message


def _function(call: Call) -> dict[str, str]:
    return {"name": call.name, "arguments": call.arguments}


def logprobs_body(scores: Iterable[TokenLogprob]) -> dict[str, Any]:
    return {
        "content": [
            {**_scored(score.chosen), "top_logprobs": [_scored(other) for other in score.top]}
            for score in scores
        ],
        "refusal": None,
    }


def _scored(scored: Scored) -> dict[str, Any]:
    return {
        "token": scored.text,
        "logprob": finite(scored.logprob),
        "bytes": None if scored.data is None else list(scored.data),
    }
