"""How one model family writes calls of tools: one description for prompt, grammar and parser."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Protocol

from msgspec import Struct

from .lark import Lark
from .source import Reading, Source


class Exact(Struct, frozen=True):
    text: str


class Gap(Struct, frozen=True):
    """Whitespace: any is read, this is written and forced."""

    text: str


class Hole(Struct, frozen=True):
    what: Literal["name", "args", "id"]


Element = Exact | Gap | Hole


def elements(spelling: str) -> tuple[Element, ...]:
    """`$name`, `$args` and `$id` stand for what differs from call to call."""
    found: list[Element] = []
    for part in re.split(r"(\$name|\$args|\$id|\s+)", spelling):
        if part in ("$name", "$args", "$id"):
            found.append(Hole(part[1:]))  # type: ignore[arg-type]
        elif part:
            found.append(Gap(part) if part.isspace() else Exact(part))
    return tuple(found)


class Arguments(Protocol):
    """How the arguments of a call are written."""

    def write(self, arguments: Mapping[str, Any]) -> str: ...

    def rule(self, lark: Lark, schema: Mapping[str, Any], param: str) -> str:
        """A Lark expression for arguments that fit `schema`, with the rules it needs in `lark`.

        Raises InvalidRequest naming `param` for a schema that cannot be enforced.
        """
        ...

    def read(self, source: Source, schema: Mapping[str, Any]) -> Reading[bool]:
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
        first = (self.begin + self.call)[0]
        assert isinstance(first, Exact)
        return first.text

    @cached_property
    def closer(self) -> str:
        """The text that ends the calls, empty where nothing does."""
        last = (self.call + self.end)[-1]
        return last.text if isinstance(last, Exact) else ""

    @cached_property
    def spellings(self) -> tuple[str, ...]:
        parts = (*self.begin, *self.call, *self.between, *self.end)
        return tuple(part.text for part in parts if isinstance(part, Exact))

    def write(self, calls: Sequence[Call]) -> str:
        between = _text(self.between)
        written = (self._write(call, i) for i, call in enumerate(calls))
        return _text(self.begin) + between.join(written) + _text(self.end)

    def _write(self, call: Call, index: int) -> str:
        holes = {
            "name": call.name,
            "args": self.arguments.write(call.arguments),
            "id": call.id or str(index),
        }
        return "".join(
            holes[part.what] if isinstance(part, Hole) else part.text for part in self.call
        )


def _text(parts: Sequence[Element]) -> str:
    return "".join(part.text for part in parts if not isinstance(part, Hole))
