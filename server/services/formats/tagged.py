"""Arguments between tags, one pair a parameter: `<parameter=city>Paris</parameter>`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from server.services.grammars import json_schema_atom

from .lark import Lark
from .properties import Property, properties, value
from .source import Reading, Source


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
            f"{self._open(name, isinstance(given, str))}{_written(given)}{self._close}"
            for name, given in arguments.items()
        )

    def _open(self, name: str, text: bool) -> str:
        after = self._after.replace("$text", self._text if text else self._other)
        return f"{self._before}{name}{after}"

    def rule(self, lark: Lark, schema: Mapping[str, Any], param: str) -> str:
        parts = [self._rule(lark, one, param) for one in properties(schema)]
        return " ".join(parts)

    def _rule(self, lark: Lark, one: Property, param: str) -> str:
        close = lark.text(self._close)
        if one.text:
            body = lark.until(self._close)
        elif one.choices:
            choices = one.choices + ("null",) * one.nullable
            body = f"({' | '.join(lark.text(choice) or '""' for choice in choices)}) {close}"
        else:
            body = f"{json_schema_atom(one.schema, param=param)} {close}"
        text = one.text or bool(one.choices)
        expansion = f"{lark.text(self._open(one.name, text))} {body}"
        return lark.rule("argument", expansion) + ("" if one.required else "?")

    def read(self, source: Source, schema: Mapping[str, Any]) -> Reading[bool]:
        known = {one.name: one for one in properties(schema)}
        found: dict[str, Any] = {}
        before = self._before.lstrip()
        after, flag, rest = self._after.partition("$text")
        while True:
            start = source.at
            yield from source.gap()
            if not (yield from source.exact(before)):
                source.at = start
                break
            key = yield from source.until(after.rstrip())
            kind = (yield from source.until(rest.rstrip())) if flag else None
            written = yield from source.until(self._close.strip())
            if key is None or written is None:
                return False
            written = _trimmed(written, (rest if flag else after), self._close)
            found[key] = self._value(known.get(key.strip()), written, kind)
        source.say(json.dumps(found, ensure_ascii=False))
        return True

    def _value(self, one: Property | None, written: str, kind: str | None) -> Any:
        if kind is not None:
            return written if kind == self._text else value(written)
        return one.value(written) if one else value(written)


def _trimmed(written: str, after: str, close: str) -> str:
    """Without the newlines that the tags have around a value."""
    if after.endswith("\n"):
        written = written.removeprefix("\n")
    if close.startswith("\n"):
        written = written.removesuffix("\n")
    return written


def _written(given: Any) -> str:
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
