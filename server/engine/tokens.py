"""Text to tokens and back for a client that asks, beside all sequences."""

from __future__ import annotations

from server.core.errors import IngleError, InvalidRequest
from server.core.protocol import EmbedRunner, ModelRunner
from server.core.types import Failed, Tokenized

from .frames import Detokenize, Tokenize


def answer(
    runner: ModelRunner | EmbedRunner, question: Tokenize | Detokenize
) -> Tokenized | Failed:
    """Any thread."""
    try:
        tokens = _tokens(runner, question)
    except IngleError as error:
        return Failed.of(question.id, error)
    pieces = {token: runner.spelling(token) for token in set(tokens)}
    return Tokenized(question.id, tuple(tokens), tuple(pieces[token] for token in tokens))


def _tokens(runner: ModelRunner | EmbedRunner, question: Tokenize | Detokenize) -> list[int]:
    if isinstance(question, Tokenize):
        return runner.tokenize(question.text, begin=question.begin)
    largest = runner.info.vocabulary - 1
    for position, token in enumerate(question.tokens):
        if not 0 <= token <= largest:
            raise InvalidRequest(
                f"Token {token} is not in this model's vocabulary, which goes from 0 to {largest}.",
                param=f"tokens[{position}]",
            )
    return list(question.tokens)
