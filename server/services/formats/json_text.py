"""JSON as it arrives: where a value ends, and whether it is one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from server.services.grammars import json_schema_atom

from .base import Tool
from .lark import Lark
from .source import Reading, Source

_SPACE = " \t\n\r"
_DEPTH = 200
_EXPONENT = 2000
_SHAPES = frozenset(("type", "$ref", "anyOf", "oneOf", "allOf"))
"""Keywords of which one says that arguments are an object, if the schema says it at all."""
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_IN_NUMBER = frozenset("0123456789.eE+-")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WORDS = {"t": "true", "f": "false", "n": "null"}
_CLOSES = {"{": "}", "[": "]"}


class JsonScanner:
    """Reads one JSON value in pieces, as strictly as Python's own reader."""

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._open: list[str] = []
        self._expects = "value"
        self._word = ""
        """What was read of a number, a literal or an escape."""

    @property
    def lacks_brace(self) -> bool:
        """Whether the value is an object that is complete but for its last bracket."""
        return not self.failed and self._open == ["{"] and self._expects == "comma"

    def scan(self, text: str, at: int) -> int:
        """Reads on from `at`; where it stopped: at the end of the text or value, or at a fault."""
        while at < len(text) and not self.done and not self.failed:
            at = self._step(text, at)
        return at

    def _step(self, text: str, at: int) -> int:
        character = text[at]
        match self._expects:
            case "string":
                return self._in_string(text, at)
            case "escape":
                return self._in_escape(character, at)
            case "number":
                return self._in_number(character, at)
            case "word":
                return self._in_word(character, at)
        if character in _SPACE:
            return at + 1
        return self._structure(character, at)

    def _structure(self, character: str, at: int) -> int:
        expects = self._expects
        if expects in ("value", "first") and not (expects == "first" and character == "]"):
            self._begin(character)
        elif character == '"' and expects in ("key", "first key"):
            self._expects = "string"
            self._word = "key"
        elif character == ":" and expects == "colon":
            self._expects = "value"
        elif character == "," and expects == "comma":
            self._expects = "key" if self._open[-1] == "{" else "value"
        elif expects in ("comma", "first", "first key") and character == _CLOSES[self._open[-1]]:
            self._open.pop()
            self._end_value()
        else:
            self.failed = True
        return at if self.failed else at + 1

    def _begin(self, character: str) -> None:
        if character in "{[":
            self._open.append(character)
            self._expects = "first key" if character == "{" else "first"
            self.failed = len(self._open) > _DEPTH
        elif character == '"':
            self._expects, self._word = "string", ""
        elif character in _WORDS:
            self._expects, self._word = "word", character
        elif character in "-0123456789":
            self._expects, self._word = "number", character
        else:
            self.failed = True

    def _in_string(self, text: str, at: int) -> int:
        plain = _PLAIN.match(text, at)
        assert plain
        at = plain.end()
        if at == len(text):
            return at
        if text[at] == "\\":
            self._expects, self._word = "escape", self._word + "\\"
        elif text[at] == '"':
            if self._word == "key":
                self._expects = "colon"
            else:
                self._end_value()
        else:
            self.failed = True
            return at
        return at + 1

    def _in_escape(self, character: str, at: int) -> int:
        kind, _, digits = self._word.partition("\\")
        if digits:
            self.failed = character not in "0123456789abcdefABCDEF"
        else:
            self.failed = character not in '"\\/bfnrtu'
        if self.failed:
            return at
        digits += character
        unfinished = digits[0] == "u" and len(digits) < 5
        self._word = f"{kind}\\{digits}" if unfinished else kind
        self._expects = "escape" if unfinished else "string"
        return at + 1

    def _in_number(self, character: str, at: int) -> int:
        if character in _IN_NUMBER:
            self._word += character
            return at + 1
        if _NUMBER.fullmatch(self._word):
            self._end_value()
        else:
            self.failed = True
        return at

    def _in_word(self, character: str, at: int) -> int:
        self._word += character
        whole = _WORDS[self._word[0]]
        if self._word == whole:
            self._end_value()
        elif not whole.startswith(self._word):
            self.failed = True
            return at
        return at + 1

    def _end_value(self) -> None:
        self._word = ""
        self._expects = "comma"
        self.done = not self._open


class JsonArguments:
    """Arguments as a JSON object, said as they come."""

    def write(self, arguments: Mapping[str, Any]) -> str:
        return dumps(arguments)

    def rule(self, lark: Lark, tool: Tool, param: str) -> str:  # noqa: ARG002
        schema = tool.parameters
        if not schema.keys() & _SHAPES:
            schema = {"type": "object", **schema}
        if schema.get("properties") == {}:
            schema = {"additionalProperties": False, **schema}
        return json_schema_atom(schema, param=param, strict=tool.strict)

    def read(self, source: Source, tool: Tool) -> Reading[bool]:  # noqa: ARG002
        scanner = JsonScanner()
        said = source.at
        sure = False
        if not (yield from source.exact("{")):
            return False
        source.at = said
        while True:
            source.at = scanner.scan(source.text, source.at)
            # The first two characters tell an object from text in braces.
            sure = sure or source.at >= said + 2
            if sure and source.at > said:
                source.say(source.text[said : source.at])
                said = source.at
            if scanner.done or scanner.failed:
                return scanner.done
            if not (yield from source.more()):
                return False


def loads(text: str) -> Any:
    """The value of JSON text as the standard has it; every number is finite. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=number)
    except RecursionError:
        raise ValueError("too deep") from None


def is_json(text: str) -> bool:
    scanner = JsonScanner()
    # A number ends where something else begins.
    return scanner.scan(text + " ", 0) >= len(text) and scanner.done


def number(text: str) -> float | int:
    """A number with a fraction or an exponent, however large. Raises ValueError."""
    value = float(text)
    if not math.isinf(value):
        return value
    exponent = Decimal(text).adjusted()
    if exponent > _EXPONENT:
        raise ValueError("too large a number")
    return int(Decimal(text))


def dumps(value: Any) -> str:
    """JSON text that UTF-8 can hold. Raises ValueError for what JSON has no word for."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text if text.isascii() or not _SURROGATE.search(text) else json.dumps(value)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
