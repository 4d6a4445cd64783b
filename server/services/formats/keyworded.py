"""Arguments as keywords: `city='Paris', days=3`, or `city:<escape>Paris<escape>,days:3`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.services.grammars import json_schema_atom

from .base import Tool
from .json_text import dumps
from .lark import Lark
from .literals import Literals, literal, to_close
from .properties import Property, properties
from .source import Reading, Source

_TEXT = r"""/'(?:[^'\\\n]|\\['"\\nt])*'/ | /"(?:[^"\\\x00-\x1f]|\\["\\\/nt])*"/"""


class KeywordArguments:
    """`close` is the bracket after them. With a `quote`, strings stand between two of it."""

    def __init__(self, sign: str, comma: str, close: str, *, quote: str = "") -> None:
        self._sign = sign
        self._comma = comma
        self._close = close
        self._quote = quote
        self._quotes = (quote, '"') if quote else ('"', "'")

    def write(self, arguments: Mapping[str, Any]) -> str:
        return self._comma.join(
            f"{name}{self._sign}{self._written(given)}" for name, given in arguments.items()
        )

    def _written(self, given: Any) -> str:
        if not self._quote:
            return literal(given)
        if isinstance(given, str):
            return f"{self._quote}{given}{self._quote}"
        if isinstance(given, Mapping):
            return "{" + ",".join(f"{k}:{self._written(v)}" for k, v in given.items()) + "}"
        if isinstance(given, list):
            return "[" + ",".join(map(self._written, given)) + "]"
        return dumps(given)

    def rule(self, lark: Lark, tool: Tool, param: str) -> str:
        """In the schema's order, with commas only between those that are there."""
        json_schema_atom(tool.parameters, param=param, strict=tool.strict)
        rest = first = ""
        comma = lark.text(self._comma)
        for one in reversed(properties(tool.parameters)):
            pair = self._pair(lark, one, tool, param)
            alone = f"{pair} {rest}".strip()
            follows = f"{comma} {pair}" if one.required else f"({comma} {pair})?"
            if one.required or not first:
                first = alone if one.required else f"({alone})?"
            else:
                first = f"({lark.rule('first', alone)} | {lark.rule('first', first)})"
            rest = lark.rule("rest", f"{follows} {rest}".strip())
        return first

    def _pair(self, lark: Lark, one: Property, tool: Tool, param: str) -> str:
        value = self._value(lark, one, tool, param)
        return lark.rule("argument", f"{lark.text(one.name + self._sign)} ({value})")

    def _value(self, lark: Lark, one: Property, tool: Tool, param: str) -> str:
        null = [lark.text("null" if self._quote else "None")] * one.nullable
        if one.text:
            return " | ".join([self._string(lark), *null])
        if one.choices:
            return " | ".join([*(lark.text(self._written(c)) for c in one.choices), *null])
        if one.schema.get("type") == "boolean" and not self._quote:
            return '"True" | "False"'
        if self._quote and _is_texts(one.schema):
            string = self._string(lark)
            return f'"[" ({string} ("," {string})*)? "]"'
        return json_schema_atom(one.schema, param=param, strict=tool.strict)

    def _string(self, lark: Lark) -> str:
        if self._quote:
            return lark.rule("string", f"{lark.text(self._quote)} {lark.until(self._quote)}")
        return lark.terminal("STRING", _TEXT)

    def read(self, source: Source, tool: Tool) -> Reading[bool]:  # noqa: ARG002
        text = yield from to_close(source, self._close, self._quotes)
        if text is None:
            return False
        try:
            source.say(Literals(text, self._quotes).json(self._sign))
        except (ValueError, OverflowError):
            return False
        return True


def _is_texts(schema: Mapping[str, Any]) -> bool:
    return (
        schema.get("type") == "array"
        and schema.get("items") == {"type": "string"}
        and not (schema.keys() & {"minItems", "maxItems", "uniqueItems", "prefixItems", "contains"})
    )
