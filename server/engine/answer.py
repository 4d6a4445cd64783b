"""What a sequence says, as its client is told: text, token ids and their probabilities."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from server.core.plan import TokenScore
from server.core.types import GenerateRequest, Resume, Scored, TokenDelta, TokenLogprob

from .text import TextAssembler


class Pieces(Protocol):
    """Of a runner, what tokens are in text."""

    def piece(self, token: int) -> bytes: ...

    def spelling(self, token: int) -> bytes: ...


class Answer:
    """Grows token by token; `delta` takes what is safe to send."""

    def __init__(self, request: GenerateRequest) -> None:
        self._id = request.id
        self._shown = frozenset(request.shown_tokens)
        self._text = TextAssembler(request.stop, request.hidden, request.hidden_start)
        self._new_text = ""
        self._new_tokens: list[int] = []
        self._pending: deque[TokenLogprob] = deque()
        self._known = 0
        self.draws = 0

    def resume(self, resume: Resume, pieces: Pieces) -> None:
        """Be as far as it was; what was told is not told again."""
        for token in resume.tokens:
            self.add(token, None, pieces)
        self._known = resume.told
        self.delta(final=False)
        self.draws = resume.draws

    @property
    def stopped(self) -> bool:
        """A stop string is complete."""
        return self._text.stopped

    def add(self, token: int, score: TokenScore | None, pieces: Pieces) -> None:
        data = pieces.spelling(token) if token in self._shown else pieces.piece(token)
        offset = self._text.decoded
        self._new_text += self._text.push(data)
        self._new_tokens.append(token)
        if score is not None:
            self._pending.append(_logprob(score, data, offset, pieces))

    def finish(self) -> None:
        self._new_text += self._text.finish()

    def delta(self, *, final: bool) -> TokenDelta | None:
        """What came since the last one, if anything did."""
        logprobs = tuple(self._released(final=final))
        text, self._new_text = self._new_text, ""
        tokens, self._new_tokens = tuple(self._new_tokens), []
        known = min(self._known, len(text))
        text, self._known = text[known:], self._known - known
        if not (text or tokens or logprobs):
            return None
        return TokenDelta(self._id, text, tokens, logprobs, self.draws)

    def _released(self, *, final: bool) -> list[TokenLogprob]:
        """Tokens are out with their first character; a stop string takes those that begin in it."""
        out = self._text.released
        released = []
        while self._pending and (self._pending[0].offset < out or (final and not self.stopped)):
            released.append(self._pending.popleft())
        return released


class PromptScores:
    """A prompt that is scored piece by piece, control tokens spelled."""

    def __init__(self, prompt: Sequence[int], pieces: Pieces) -> None:
        self._prompt = prompt
        self._pieces = pieces
        self._assembler = TextAssembler()
        self._text = self._assembler.push(pieces.spelling(prompt[0]))
        self._found: list[TokenLogprob] = []

    def add(self, position: int, scores: Sequence[TokenScore]) -> None:
        """Of the tokens after `position`, in order; what is known already stays."""
        for score in scores[len(self._found) - position :]:
            data = self._pieces.spelling(self._prompt[len(self._found) + 1])
            self._found.append(_logprob(score, data, self._assembler.decoded, self._pieces))
            self._text += self._assembler.push(data)

    def whole(self) -> tuple[str, tuple[TokenLogprob, ...]]:
        """Its text, and every token but the first."""
        return self._text + self._assembler.finish(), tuple(self._found)


def _logprob(score: TokenScore, data: bytes, offset: int, pieces: Pieces) -> TokenLogprob:
    top = tuple(_scored(token, logprob, pieces) for token, logprob in score.top)
    chosen = Scored(score.token, data.decode("utf-8", "replace"), data or None, score.logprob)
    return TokenLogprob(chosen, top, offset)


def _scored(token: int, logprob: float, pieces: Pieces) -> Scored:
    """Of control tokens the spelling, which is not text."""
    data = pieces.piece(token)
    text = (data or pieces.spelling(token)).decode("utf-8", "replace")
    return Scored(token, text, data or None, logprob)
