"""What a model's raw text turns out to be: reasoning, content and tool calls, piece by piece."""

from __future__ import annotations

from msgspec import Struct


class Reasoning(Struct, frozen=True):
    """Text of the reasoning block, without its tags."""

    text: str


class Content(Struct, frozen=True):
    """Visible text, exactly as it stands in the raw text from character `start` on."""

    text: str
    start: int


class CallStart(Struct, frozen=True):
    """Call number `index` (0, 1, 2 … of one answer) begins; its name is whole."""

    index: int
    id: str
    name: str


class CallArguments(Struct, frozen=True):
    """The next piece of the arguments of call `index`: together they are one JSON object."""

    index: int
    text: str


Part = Reasoning | Content | CallStart | CallArguments
