"""Reads GBNF, the grammars of llama.cpp, into rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NoReturn

from msgspec import Struct

from .lark import LAST, Ranges, inverted, merged

MAX_TEXT = 100_000
MAX_RULES = 1_000
MAX_LEVELS = 2_500
MAX_DEPTH = 50
MAX_REPEAT = 10_000

_NAME = re.compile(r"[A-Za-z0-9-]+")
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_TOKEN = re.compile(r"(!?)<(?:\[(\d{1,9})\]|([^<>\s\[][^<>\s]*))>")
_COUNT = re.compile(r"\{\s*(\d{1,9})\s*(,\s*(\d{0,9})\s*)?\}")
_HEX = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_ESCAPES = {"t": 9, "r": 13, "n": 10} | {char: ord(char) for char in '\\"[]-'}


class Chars(Struct, frozen=True):
    """One character."""

    ranges: Ranges


class Token(Struct, frozen=True):
    """One token of the model, in Lark's spelling."""

    text: str


class Ref(Struct, frozen=True):
    name: str


class Sequence(Struct, frozen=True):
    items: tuple[Expression, ...]


class Choice(Struct, frozen=True):
    options: tuple[Expression, ...]


class Repeat(Struct, frozen=True):
    item: Expression
    low: int
    high: int | None


Expression = Chars | Token | Ref | Sequence | Choice | Repeat
EMPTY = Sequence(())


def children(node: Expression) -> tuple[Expression, ...]:
    match node:
        case Sequence(items) | Choice(items):
            return items
        case Repeat(item, _, _):
            return (item,)
    return ()


def everything(expressions: Iterable[Expression]) -> Iterable[Expression]:
    """The expressions and all that is in them, without following references."""
    waiting = list(expressions)
    while waiting:
        node = waiting.pop()
        waiting.extend(children(node))
        yield node


class GbnfError(ValueError):
    """What is wrong, with its line; a whole sentence."""


def read(text: str) -> Mapping[str, Expression]:
    """The rules by name. Raises GbnfError."""
    if len(text) > MAX_TEXT:
        raise GbnfError(f"The grammar is longer than {MAX_TEXT} characters.")
    return _Reader(text).rules()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._used: dict[str, int] = {}

    def rules(self) -> dict[str, Expression]:
        rules: dict[str, Expression] = {}
        self._skip(_BLANK)
        while self._at < len(self._text):
            name = self._match(_NAME, "the name of a rule")[0]
            self._skip(_SPACE)
            if not self._take("::="):
                self._fail(f"expected ::= after {name[:60]}")
            self._skip(_BLANK)
            rules[name] = self._choice(nested=False)
            if self._at < len(self._text) and self._text[self._at] not in "\r\n":
                self._fail(f"unexpected {self._text[self._at]!r}")
            self._skip(_BLANK)
            if len(rules) > MAX_RULES:
                self._fail(f"more than {MAX_RULES} rules")
        for name, at in self._used.items():
            if name not in rules:
                self._at = at
                self._fail(f"the rule {name[:60]} is not defined")
        if "root" not in rules:
            self._fail("the rule root is missing")
        return rules

    def _choice(self, *, nested: bool) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"groups nest deeper than {MAX_DEPTH}")
        options = [self._sequence(nested)]
        while self._take("|"):
            self._skip(_BLANK)
            options.append(self._sequence(nested))
        self._depth -= 1
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self, nested: bool) -> Expression:
        space = _BLANK if nested else _SPACE
        items: list[Expression] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)\r\n":
            char = self._text[self._at]
            if char in "*+?{":
                if not items:
                    self._fail(f"nothing to repeat before {char}")
                items[-1] = self._repeated(items[-1])
            else:
                items.append(self._item(char))
            self._skip(space)
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def _item(self, char: str) -> Expression:
        if char == '"':
            return self._literal()
        if char == "[":
            return self._class()
        if char in "<!":
            negated, number, spelling = self._match(_TOKEN, "a token like <[123]>").groups()
            if number is None and negated:
                self._fail("a negated token needs its number: !<[123]>")
            return Token(f"<[{'^' * bool(negated)}{int(number)}]>" if number else f"<{spelling}>")
        if char == "(":
            self._at += 1
            self._skip(_BLANK)
            inner = self._choice(nested=True)
            if not self._take(")"):
                self._fail("expected )")
            return inner
        if char == ".":
            self._at += 1
            return Chars(merged([(0, LAST)]))
        at = self._at
        name = self._match(_NAME, "a rule, a literal or a group")[0]
        self._used.setdefault(name, at)
        return Ref(name)

    def _repeated(self, item: Expression) -> Expression:
        if self._take("*"):
            return Repeat(item, 0, None)
        if self._take("+"):
            return Repeat(item, 1, None)
        if self._take("?"):
            return Repeat(item, 0, 1)
        match = self._match(_COUNT, "a count like {2}, {2,} or {2,5}")
        low = int(match[1])
        high = low if match[2] is None else int(match[3]) if match[3] else None
        if max(low, high or 0) > MAX_REPEAT:
            self._fail(f"a repetition of more than {MAX_REPEAT}")
        if high is not None and high < low:
            self._fail(f"a repetition of {low} to {high} times")
        return Repeat(item, low, high) if high != 0 else EMPTY

    def _literal(self) -> Expression:
        self._at += 1
        items: list[Expression] = []
        while not self._take('"'):
            code = self._code()
            items.append(Chars(((code, code),)))
        return Sequence(tuple(items))

    def _class(self) -> Expression:
        self._at += 1
        negated = self._take("^")
        spans: list[tuple[int, int]] = []
        while not self._take("]"):
            low = high = self._code()
            following = self._text[self._at + 1 : self._at + 2]
            if following != "]" and self._take("-"):
                high = self._code()
                if high < low:
                    self._fail(f"a range from {chr(low)!r} to the lower {chr(high)!r}")
            spans.append((low, high))
        ranges = inverted(merged(spans)) if negated else merged(spans)
        if not ranges:
            self._fail("a class that no character fits")
        return Chars(ranges)

    def _code(self) -> int:
        char = self._text[self._at : self._at + 1]
        if not char or char in "\r\n":
            self._fail("a literal or class does not end in its line")
        code, length = ord(char), 1
        if char == "\\":
            match = _HEX.match(self._text, self._at)
            escape = self._text[self._at + 1 : self._at + 2]
            if match:
                code, length = int(match[1] or match[2] or match[3], 16), len(match[0])
            elif escape and escape in _ESCAPES:
                code, length = _ESCAPES[escape], 2
            else:
                self._fail(f"unknown escape \\{escape}")
        if code > LAST or 0xD800 <= code <= 0xDFFF:
            self._fail(f"{code:x} is no character")
        self._at += length
        return code

    def _skip(self, space: re.Pattern[str]) -> None:
        match = space.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _match(self, wanted: re.Pattern[str], what: str) -> re.Match[str]:
        match = wanted.match(self._text, self._at)
        if match is None:
            self._fail(f"expected {what}")
        self._at = match.end()
        return match

    def _take(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _fail(self, why: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        raise GbnfError(f"Line {line} of the grammar: {why}.")
