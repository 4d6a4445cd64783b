"""Logprobs as /v1/completions has them: four lists of one length, alternatives by their text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct, structs

from server.core.types import PromptScored, Scored, TokenLogprob

from .common import finite


class Logprobs(Struct):
    """`text_offset` is in characters of the choice's text, from its first one."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]

    @classmethod
    def of(cls, scores: Iterable[TokenLogprob], *, shift: int = 0) -> Logprobs:
        """`shift` is how much text stands before the one that offsets are counted from."""
        scores = tuple(scores)
        return cls(
            [_text(score.chosen) for score in scores],
            [finite(score.chosen.logprob) for score in scores],
            [_by_text(score) for score in scores],
            [score.offset + shift for score in scores],
        )

    @classmethod
    def empty(cls) -> Logprobs:
        return cls([], [], [], [])

    @classmethod
    def of_prompt(cls, prompt: PromptScored, *, hidden: int = 0) -> Logprobs:
        """The first token follows nothing and has no probability.

        The first `hidden` characters of the prompt are no part of the choice's text.
        """
        first = prompt.text[: prompt.logprobs[0].offset] if prompt.logprobs else prompt.text
        rest = cls.of(prompt.logprobs, shift=-hidden)
        return cls(
            [first, *rest.tokens],
            [None, *rest.token_logprobs],
            [None, *rest.top_logprobs],
            [0, *(max(0, offset) for offset in rest.text_offset)],
        )

    def extend(self, more: Logprobs) -> None:
        self.tokens += more.tokens
        self.token_logprobs += more.token_logprobs
        self.top_logprobs += more.top_logprobs
        self.text_offset += more.text_offset

    def body(self) -> dict[str, Any]:
        return structs.asdict(self)


def _by_text(score: TokenLogprob) -> dict[str, float]:
    """Of two tokens that look the same the likelier one. The chosen one is always among them."""
    found: dict[str, float] = {}
    for scored in (*score.top, score.chosen):
        text, logprob = _text(scored), finite(scored.logprob)
        found[text] = max(logprob, found.get(text, logprob))
    return found


def _text(scored: Scored) -> str:
    """Part of a character is written as OpenAI does, so that no two parts look the same."""
    if scored.data is None or "\ufffd" not in scored.text:
        return scored.text
    try:
        return scored.data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in scored.data)
