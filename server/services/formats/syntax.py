"""How one model family writes calls of tools: one description for prompt, grammar and parser."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Protocol

from msgspec import Struct

from .base import Tool
from .lark import Lark
from .source import Reading, Source


class Exact(Struct, frozen=True):
    text: str


class Gap(Struct, frozen=True):
    """Whitespace: any is read, this is written and forced."""

    text: str


class Hole(Struct, frozen=True):
    what: Literal["name", "args", "id"]


class Maybe(Struct, frozen=True):
    """What may be left out. It is not written."""

    parts: tuple[Exact | Gap | Hole, ...]


Element = Exact | Gap | Hole | Maybe


def elements(spelling: str) -> tuple[Element, ...]:
    """`$name`, `$args`, `$id` stand for what differs between calls; `$(…$)` may be left out."""
    found: list[Element] = []
    for i, part in enumerate(re.split(r"\$\((.*?)\$\)", spelling)):
        found += [Maybe(_plain(part))] if i % 2 else _plain(part)
    return tuple(found)


def _plain(spelling: str) -> tuple[Exact | Gap | Hole, ...]:
    found: list[Exact | Gap | Hole] = []
    for part in re.split(r"(\$name|\$args|\$id|\s+)", spelling):
        if part in ("$name", "$args", "$id"):
            found.append(Hole(part[1:]))  # type: ignore[arg-type]
        elif part:
            found.append(Gap(part) if part.isspace() else Exact(part))
    return tuple(found)


class Arguments(Protocol):
    """How the arguments of a call are written."""

    def write(self, arguments: Mapping[str, Any]) -> str: ...

    def rule(self, lark: Lark, tool: Tool, param: str) -> str:
        """A Lark expression for arguments of `tool`, perhaps empty, with its rules in `lark`.

        Raises InvalidRequest naming `param` for a schema that cannot be enforced.
        """
        ...

    def read(self, source: Source, tool: Tool) -> Reading[bool]:
        """Reads arguments and says them as JSON through `source.say`, in pieces that come early
        or whole. False for what is no such text: then what was said is no JSON."""
        ...


class Call(Struct, frozen=True):
    name: str
    arguments: Mapping[str, Any]
    id: str = ""


class Syntax:
    """`begin` and `end` surround the calls of one answer, `between` stands between two of them.

    Spellings are as in `elements`. `bare`: nothing but the call itself tells it from other text.
    """

    def __init__(
        self,
        call: str,
        arguments: Arguments,
        *,
        begin: str = "",
        between: str = "\n",
        end: str = "",
        parallel: bool = True,
        bare: bool = False,
    ) -> None:
        self.call = elements(call)
        self.begin = elements(begin)
        self.between = elements(between)
        self.end = elements(end)
        self.arguments = arguments
        self.parallel = parallel
        self.bare = bare

    @cached_property
    def trigger(self) -> str:
        """The text that begins a call."""
        return next((part.text for part in self.begin + self.call if isinstance(part, Exact)), "")

    @cached_property
    def spellings(self) -> tuple[str, ...]:
        parts: list[Element] = []
        for part in (*self.begin, *self.call, *self.between, *self.end):
            parts += part.parts if isinstance(part, Maybe) else [part]
        return tuple(part.text for part in parts if isinstance(part, Exact))

    def write(self, calls: Sequence[Call]) -> str:
        written = [self._written(self.call, call, i) for i, call in enumerate(calls)]
        begin, between, end = (
            self._written(parts, None, 0) for parts in (self.begin, self.between, self.end)
        )
        return begin + between.join(written) + end

    def _written(self, parts: Sequence[Element], call: Call | None, index: int) -> str:
        holes = {}
        if call:
            arguments = self.arguments.write(call.arguments)
            holes = {"name": call.name, "args": arguments, "id": call.id or str(index)}
        return "".join(
            holes[part.what] if isinstance(part, Hole) else part.text
            for part in parts
            if not isinstance(part, Maybe)
        )
