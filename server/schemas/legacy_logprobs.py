"""Logprobs as /v1/completions has them: four lists of one length, alternatives by their text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct, structs

from server.core.types import Scored, TokenLogprob


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
            [score.chosen.logprob for score in scores],
            [_by_text(score) for score in scores],
            [score.offset + shift for score in scores],
        )

    @classmethod
    def empty(cls) -> Logprobs:
        return cls([], [], [], [])

    def without_first(self) -> Logprobs:
        """Of a prompt, whose first token follows nothing and has no probability."""
        if self.tokens:
            self.token_logprobs[0] = self.top_logprobs[0] = None
        return self

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
        text = _text(scored)
        found[text] = max(scored.logprob, found.get(text, scored.logprob))
    return found


def _text(scored: Scored) -> str:
    """Part of a character is written as OpenAI does, so that no two parts look the same."""
    if scored.data is None or "\ufffd" not in scored.text:
        return scored.text
    try:
        return scored.data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in scored.data)
