"""What a JSON text may hold, found out by counting: without reading it, and in a few milliseconds.

Reading is one call, in which no stream moves.
"""

from __future__ import annotations

from server.core.errors import BodyTooLarge, InvalidRequest

MAX_DEPTH = 64
MAX_PARTS = 20_000
"""Objects and lists. One takes up to 2.7 µs, if it is a tool call."""
MAX_KEYS = 50_000
"""Of all objects together. One takes up to 0.3 µs."""
MAX_VALUES = 400_000
"""As commas count them: lists of token ids are long. One takes up to 0.1 µs."""

_NO_NUMBERS = (b"NaN", b"Infinity")
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(byte for byte in range(256) if byte not in b"[]{}")


def check_json(raw: bytes) -> None:
    """Raises BodyTooLarge, or InvalidRequest for too deep a nesting or a number that is none.

    Says nothing of what is no JSON.
    """
    if _parts(raw) <= MAX_DEPTH and _is_small(raw) and not _may_hold_no_number(raw):
        return
    raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if raw.count(b'"') > 2 * (MAX_KEYS + MAX_VALUES):
        raise _too_many(MAX_VALUES, "values")
    bare = b"".join(raw.split(b'"')[::2])  # no strings, only what is between them
    if not _is_small(bare):
        raise _too_large(bare)
    if any(word in bare for word in _NO_NUMBERS):
        raise InvalidRequest(
            "We could not parse the JSON body of your request: NaN and Infinity are no JSON.",
            code="",
        )
    if _is_deeper(bare, MAX_DEPTH):
        raise InvalidRequest(
            f"The JSON body of your request is nested deeper than {MAX_DEPTH} levels, this"
            " server's limit.",
            code="json_too_deep",
        )


def _parts(text: bytes) -> int:
    return text.count(b"{") + text.count(b"[")


def _is_small(text: bytes) -> bool:
    return (
        _parts(text) <= MAX_PARTS
        and text.count(b":") <= MAX_KEYS
        and text.count(b",") <= MAX_VALUES
    )


def _may_hold_no_number(text: bytes) -> bool:
    return any(word in text for word in _NO_NUMBERS)


def _too_large(bare: bytes) -> BodyTooLarge:
    if _parts(bare) > MAX_PARTS:
        return _too_many(MAX_PARTS, "objects and lists")
    if bare.count(b":") > MAX_KEYS:
        return _too_many(MAX_KEYS, "keys")
    return _too_many(MAX_VALUES, "values")


def _too_many(most: int, what: str) -> BodyTooLarge:
    return BodyTooLarge(f"The request body holds over {most} {what}, this server's limit.")


def _is_deeper(bare: bytes, most: int) -> bool:
    """Takes the innermost level away, `most` times."""
    left = bare.translate(_BRACKETS, _NO_BRACKET)
    for _ in range(most):
        left, before = left.replace(b"[]", b""), len(left)
        if len(left) == before:
            return False
    return b"[]" in left
