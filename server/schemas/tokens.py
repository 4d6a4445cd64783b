"""/tokenize and /detokenize on the wire, as llama-server has them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from server.core.types import Tokenized

from .common import NO_LIMIT, RequestBody

MAX_TEXT = 1 << 18
"""In characters, and in tokens: what tokenizers take half a second for at worst."""

_Token = Annotated[int, Field(ge=0, le=NO_LIMIT)]


class TokenizeRequest(RequestBody):
    model: str | None = None
    """May be left out when one model is served."""
    content: str = Field(max_length=MAX_TEXT)
    add_special: bool | None = None
    """Begin as a prompt does, with BOS where the model wants one. Off unless given."""
    parse_special: bool | None = None
    """Read the spelling of a control token as that token, not as text. On unless given."""
    with_pieces: bool | None = None
    """Each token with its text, or with its bytes where they are no whole characters."""


class DetokenizeRequest(RequestBody):
    model: str | None = None
    """May be left out when one model is served."""
    tokens: Annotated[list[_Token], Field(fail_fast=True, max_length=MAX_TEXT)]


def tokens_body(tokenized: Tokenized, *, with_pieces: bool) -> dict[str, Any]:
    if not with_pieces:
        return {"tokens": tokenized.tokens}
    pairs = zip(tokenized.tokens, tokenized.pieces, strict=True)
    return {"tokens": [{"id": token, "piece": _piece(data)} for token, data in pairs]}


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


def content_body(tokenized: Tokenized) -> dict[str, str]:
    return {"content": tokenized.text}
