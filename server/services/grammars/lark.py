"""How text and characters are spelled in llguidance's Lark dialect. All of it is ASCII."""

from __future__ import annotations

import json
from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]
"""Code points, both ends included, ascending and apart from each other."""

LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)


def string(text: str) -> str:
    """A Lark string; `text` holds no surrogates."""
    return json.dumps(text)


def character(code: int) -> str:
    """One character in a regular expression, inside a class or out of it."""
    text = chr(code)
    return text if text.isascii() and text.isalnum() else f"\\u{{{code:x}}}"


def character_class(ranges: Ranges) -> str:
    """A class in a regular expression; an empty one matches nothing."""
    if not ranges:
        return r"[^\u{0}-\u{10ffff}]"
    spans = (
        character(low) if low == high else f"{character(low)}-{character(high)}"
        for low, high in ranges
    )
    return f"[{''.join(spans)}]"


def merged(spans: Iterable[tuple[int, int]]) -> Ranges:
    """Without surrogates, which no UTF-8 text holds."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(part for span in spans for part in _without_surrogates(span)):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def inverted(ranges: Ranges) -> Ranges:
    edges = [-1, *(edge for span in ranges for edge in span), LAST + 1]
    gaps = ((edges[i] + 1, edges[i + 1] - 1) for i in range(0, len(edges), 2))
    return merged((low, high) for low, high in gaps if low <= high)


def _without_surrogates(span: tuple[int, int]) -> list[tuple[int, int]]:
    low, high = span
    parts = ((low, min(high, _SURROGATES[0] - 1)), (max(low, _SURROGATES[1] + 1), high))
    return [part for part in parts if part[0] <= part[1]]
