"""One choice as it is read: raw deltas in, the parts of the answer with their scores out."""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from server.core.types import Finished, TokenDelta, TokenLogprob
from server.schemas.chat_answer import ChatFinishReason, Ended
from server.schemas.output import CallStart, Content, Part, Reasoning

from .formats.base import Parser


class Said(Struct, frozen=True):
    """What choice `index` says. `scores` belong to the tokens whose text a Content releases."""

    index: int
    part: Part
    scores: tuple[TokenLogprob, ...] = ()


class ChoiceReader:
    def __init__(self, index: int, parser: Parser, *, legacy: bool) -> None:
        self._index = index
        self._parser = parser
        self._legacy = legacy
        self._waiting: deque[TokenLogprob] = deque()
        self._thinks = False
        self._reasoning_tokens = 0

    def push(self, delta: TokenDelta) -> list[Said]:
        self._waiting.extend(delta.logprobs)
        parts = self._parser.push(delta.text) if delta.text else []
        if parts:
            self._thinks = isinstance(parts[-1], Reasoning)
        if self._thinks:
            self._reasoning_tokens += len(delta.tokens)
        return self._said(parts)

    def finish(self, finished: Finished) -> tuple[list[Said], Ended]:
        said = self._said(self._parser.finish(finished.reason))
        usage = finished.usage
        return said, Ended(
            reason=self._reason(finished),
            usage=usage,
            reasoning_tokens=min(self._reasoning_tokens, usage.completion_tokens),
            calls=self._parser.complete_calls,
        )

    def _said(self, parts: list[Part]) -> list[Said]:
        """Empty pieces say nothing."""
        said = []
        for part in parts:
            if isinstance(part, Content):
                if part.text:
                    scores = self._scores(part.start, part.start + len(part.text))
                    said.append(Said(self._index, part, scores))
            elif isinstance(part, CallStart) or part.text:
                said.append(Said(self._index, part))
        return said

    def _scores(self, start: int, end: int) -> tuple[TokenLogprob, ...]:
        """Of the tokens that begin before `end` and reach beyond `start`."""
        found = []
        while self._waiting and self._waiting[0].offset < end:
            score = self._waiting.popleft()
            if score.offset + len(score.chosen.text) > start:
                found.append(score)
        return tuple(found)

    def _reason(self, finished: Finished) -> ChatFinishReason:
        if finished.reason == "length" or not self._parser.complete_calls:
            return finished.reason
        return "function_call" if self._legacy else "tool_calls"
