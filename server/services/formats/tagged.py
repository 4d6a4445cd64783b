"""Arguments between tags, one pair a parameter: `<parameter=city>Paris</parameter>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.services.grammars import json_schema_atom

from .base import Tool
from .json_text import dumps
from .lark import Lark
from .properties import Property, json, properties
from .source import Reading, Source

_EMPTY = '""'


class TaggedArguments:
    """`open` holds `$key`, and `$text` where the family says whether a value is a bare string.

    Whitespace around a value belongs to the tags as it is spelled there: no more than one newline.
    """

    def __init__(self, open: str, close: str, *, text: tuple[str, str] = ("", "")) -> None:
        self._before, _, self._after = open.partition("$key")
        self._close = close
        self._text, self._other = text

    def write(self, arguments: Mapping[str, Any]) -> str:
        return "".join(
            f"{self._open(name, isinstance(given, str))}{_written(given)}{self.closing(name)}"
            for name, given in arguments.items()
        )

    def _open(self, name: str, text: bool) -> str:
        after = self._after.replace("$text", self._text if text else self._other)
        return f"{self._before}{name}{after}"

    def closing(self, name: str) -> str:
        return self._close.replace("$key", name)

    def rule(self, lark: Lark, tool: Tool, param: str) -> str:
        json_schema_atom(tool.parameters, param=param, strict=tool.strict)
        parts = [self._rule(lark, one, tool, param) for one in properties(tool.parameters)]
        return " ".join(parts)

    def _rule(self, lark: Lark, one: Property, tool: Tool, param: str) -> str:
        close = lark.text(self.closing(one.name))
        if one.text:
            body = lark.until(self.closing(one.name))
        elif one.choices:
            choices = one.choices + ("null",) * one.nullable
            options = " | ".join(lark.text(choice) or _EMPTY for choice in choices)
            body = f"({options}) {close}"
        else:
            body = f"{json_schema_atom(one.schema, param=param, strict=tool.strict)} {close}"
        text = one.text or bool(one.choices)
        expansion = f"{lark.text(self._open(one.name, text))} {body}"
        return lark.rule("argument", expansion) + ("" if one.required else "?")

    def read(self, source: Source, tool: Tool) -> Reading[bool]:
        known = {one.name: one for one in properties(tool.parameters)}
        found: dict[str, str] = {}
        before = self._before.lstrip()
        after, flag, rest = self._after.partition("$text")
        while True:
            start = source.at
            yield from source.gap()
            if not (yield from source.exact(before)):
                source.at = start
                break
            if (yield from source.exact("/")):
                source.at = start
                break
            key = yield from source.until(after.rstrip())
            kind = (yield from source.until(rest.rstrip())) if flag else None
            if key is None:
                return False
            written = yield from source.until(self.closing(key).strip())
            if written is None:
                return False
            written = _trimmed(written, (rest if flag else after), self._close)
            key = key.strip()
            found[key] = self._json(known.get(key), written, kind)
        if source.exhausted:
            return False
        members = (f"{dumps(key)}: {value}" for key, value in found.items())
        source.say("{" + ", ".join(members) + "}")
        return True

    def _json(self, one: Property | None, written: str, kind: str | None) -> str:
        if kind is not None:
            return dumps(written) if kind == self._text else json(written)
        return one.json(written) if one else json(written)


def _trimmed(written: str, after: str, close: str) -> str:
    """Without the newlines that the tags have around a value."""
    if after.endswith("\n"):
        written = written.removeprefix("\n")
    if close.startswith("\n"):
        written = written.removesuffix("\n")
    return written


def _written(given: Any) -> str:
    return given if isinstance(given, str) else dumps(given)
