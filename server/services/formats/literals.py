"""Values as programs write them: Python's literals, JSON's, and those with quotes of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .json_text import dumps, is_json, loads, number
from .source import Reading, Source

_OPENS, _CLOSES = "([{", ")]}"
_NUMBER = re.compile(r"[+-]?(?:\d+(?:_\d+)*)?\.?\d*(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[^\s,:=()\[\]{}'\"<>]+")
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": ""}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[\s\S])")
_DEPTH = 100


def to_close(source: Source, close: str, quotes: tuple[str, ...]) -> Reading[str | None]:
    """The text up to the bracket `close` that matches one just read, which is left unread."""
    start, quote, depth = source.at, "", 0
    while True:
        if source.at >= len(source.text):
            if not (yield from source.more()):
                return None
            continue
        if quote:
            if source.text[source.at] == "\\" and len(quote) == 1:
                source.at += 2
            elif (yield from source.exact(quote)):
                quote = ""
            else:
                source.at += 1
            continue
        quote = yield from _quote(source, quotes)
        if quote:
            continue
        character = source.text[source.at]
        if character == close and not depth:
            return source.text[start : source.at]
        depth += (character in _OPENS) - (character in _CLOSES)
        if depth < 0:
            return None
        source.at += 1


def _quote(source: Source, quotes: tuple[str, ...]) -> Reading[str]:
    for quote in quotes:
        if (yield from source.exact(quote)):
            return quote
    return ""


class Literals:
    """Reads a text of `name=value` or `key:value` pairs as JSON. Raises ValueError."""

    def __init__(self, text: str, quotes: tuple[str, ...]) -> None:
        self._text = text
        self._at = 0
        self._quotes = quotes

    def json(self, sign: str) -> str:
        """The pairs as an object."""
        found = self._members(sign, "", 0)
        if self._at < len(self._text):
            raise ValueError("more than pairs")
        return found

    def _members(self, sign: str, close: str, depth: int) -> str:
        found: dict[str, str] = {}
        while not self._ends(close):
            key = self._key()
            self._expect(sign)
            found[key] = self._value(depth + 1)
            self._comma(close)
        return "{" + ", ".join(f"{dumps(key)}: {value}" for key, value in found.items()) + "}"

    def _ends(self, close: str) -> bool:
        self._space()
        if close and self._text.startswith(close, self._at):
            self._at += 1
            return True
        return not close and self._at == len(self._text)

    def _comma(self, close: str) -> None:
        self._space()
        rest = self._text[self._at : self._at + 1]
        if rest == ",":
            self._at += 1
        elif rest != close:
            raise ValueError("no comma")

    def _key(self) -> str:
        quoted = self._quoted()
        if quoted is not None:
            return quoted
        return self._word()

    def _value(self, depth: int) -> str:
        if depth > _DEPTH:
            raise ValueError("too deep")
        self._space()
        quoted = self._quoted()
        if quoted is not None:
            return dumps(quoted)
        bracket = self._text[self._at : self._at + 1]
        if bracket == "{":
            self._at += 1
            return self._members(":", "}", depth)
        if bracket in ("[", "("):
            self._at += 1
            return self._items("]" if bracket == "[" else ")", depth)
        return self._plain()

    def _items(self, close: str, depth: int) -> str:
        found = []
        while not self._ends(close):
            found.append(self._value(depth + 1))
            self._comma(close)
        return "[" + ", ".join(found) + "]"

    def _plain(self) -> str:
        word = self._word()
        if word in _CONSTANTS:
            return _CONSTANTS[word]
        if is_json(word):
            return word
        if not _NUMBER.fullmatch(word):
            raise ValueError("not a literal")
        digits = word.replace("_", "").removeprefix("+")
        return dumps(number(digits) if any(sign in digits for sign in ".eE") else int(digits))

    def _word(self) -> str:
        match = _WORD.match(self._text, self._at)
        if match is None:
            raise ValueError("nothing there")
        self._at = match.end()
        return match[0]

    def _quoted(self) -> str | None:
        quote = next((q for q in self._quotes if self._text.startswith(q, self._at)), None)
        if quote is None:
            return None
        start = self._at = self._at + len(quote)
        while not self._text.startswith(quote, self._at):
            if self._at >= len(self._text):
                raise ValueError("no closing quote")
            self._at += 2 if self._text[self._at] == "\\" and len(quote) == 1 else 1
        written = self._text[start : self._at]
        self._at += len(quote)
        return _unescaped(written, quote) if len(quote) == 1 else written

    def _expect(self, sign: str) -> None:
        self._space()
        if not self._text.startswith(sign, self._at):
            raise ValueError(f"no {sign}")
        self._at += len(sign)

    def _space(self) -> None:
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1


def _unescaped(written: str, quote: str) -> str:
    if quote == '"':
        try:
            return str(loads(f'"{written}"'))
        except ValueError:
            pass
    return _ESCAPE.sub(_meaning, written)


def _meaning(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) > 1:
        return chr(min(int(escape[1:], 16), 0x10FFFF))
    return _ESCAPES.get(escape, escape if escape in "\\'\"" else match[0])


def literal(given: Any) -> str:
    """As Python writes it."""
    if isinstance(given, Mapping):
        return "{" + ", ".join(f"{k!r}: {literal(v)}" for k, v in given.items()) + "}"
    if isinstance(given, list | tuple):
        return "[" + ", ".join(map(literal, given)) + "]"
    return repr(given)
