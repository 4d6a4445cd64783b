"""The SSE frames of a streamed chat answer."""

from __future__ import annotations

import json
from collections.abc import Sequence

from server.core.types import TokenLogprob, Usage

from .chat_answer import AnswerShape, Ended, logprobs_body
from .common import usage_body
from .head import AnswerHead
from .output import CallArguments, CallStart, Content, Part, Reasoning


class ChatFrames:
    """The frames of one stream. What never changes in it is encoded once.

    A delta holds only what is new: SDKs join every string that comes twice.
    """

    def __init__(self, head: AnswerHead, shape: AnswerShape, choices: int) -> None:
        common = json.dumps(head.fields("chat.completion.chunk"))[:-1]
        self._shape = shape
        self._before = f"data: {common}, ".encode()
        self._starts = [
            self._before + f'"choices": [{{"index": {index}, "delta": '.encode()
            for index in range(choices)
        ]
        self._open = list(range(choices))
        self._after = b', "usage": null}\n\n' if shape.include_usage else b"}\n\n"
        self._end = b', "logprobs": null, "finish_reason": null}]' + self._after

    def role(self, index: int) -> bytes:
        """The first frame of a choice: only null adds up to the null of an answer of calls."""
        content = b"null" if self._shape.tools else b'""'
        return self._frame(index, b'{"role": "assistant", "content": ' + content + b"}")

    def idle(self) -> bytes:
        """Of a choice that goes on, if one does. It says nothing; clients that time the gaps
        between chunks see one."""
        return self._frame(self._open[0], b"{}") if self._open else b""

    def part(self, index: int, part: Part, scores: Sequence[TokenLogprob] = ()) -> bytes:
        match part:
            case Content(text):
                delta = b'{"content": ' + _text(text)
                if self._shape.logprobs:
                    return self._scored(index, delta, scores)
                return self._frame(index, delta + b"}")
            case Reasoning(text):
                return self._frame(index, b'{"reasoning_content": ' + _text(text) + b"}")
            case CallStart(number, id, name):
                return self._frame(index, self._call_start(number, id, name))
            case CallArguments(number, text):
                return self._frame(index, self._call_arguments(number, text))

    def finish(self, index: int, ended: Ended) -> bytes:
        self._open.remove(index)
        reason = ended.reason.encode()
        end = b'{}, "logprobs": null, "finish_reason": "' + reason + b'"}]'
        return self._starts[index] + end + self._after

    def usage(self, usages: list[Usage], reasoning_tokens: int) -> bytes:
        """The frame after the last choice's, where it was asked for."""
        if not self._shape.include_usage:
            return b""
        body = json.dumps(usage_body(usages, reasoning_tokens)).encode()
        return self._before + b'"choices": [], "usage": ' + body + b"}\n\n"

    def _frame(self, index: int, delta: bytes) -> bytes:
        return self._starts[index] + delta + self._end

    def _scored(self, index: int, delta: bytes, scores: Sequence[TokenLogprob]) -> bytes:
        logprobs = json.dumps(logprobs_body(scores)).encode()
        end = b'}, "logprobs": ' + logprobs + b', "finish_reason": null}]'
        return self._starts[index] + delta + end + self._after

    def _call_start(self, number: int, id: str, name: str) -> bytes:
        function = b'{"name": ' + _text(name) + b', "arguments": ""}'
        if self._shape.legacy:
            return b'{"function_call": ' + function + b"}"
        head = f'{{"tool_calls": [{{"index": {number}, "id": {json.dumps(id)}, '.encode()
        return head + b'"type": "function", "function": ' + function + b"}]}"

    def _call_arguments(self, number: int, text: str) -> bytes:
        function = b'{"arguments": ' + _text(text) + b"}"
        if self._shape.legacy:
            return b'{"function_call": ' + function + b"}"
        return b'{"tool_calls": [{"index": %d, "function": %b}]}' % (number, function)


def _text(text: str) -> bytes:
    return json.dumps(text).encode()
