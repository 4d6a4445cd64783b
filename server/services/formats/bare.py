"""Calls that a small model writes without its family's tags: bare, fenced or as Python does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jsonschema
import referencing
import referencing.exceptions
from msgspec import Struct

from .base import Tool
from .json_text import JsonScanner, dumps, loads
from .lark import Lark, pattern_of
from .literals import Literals

_TAGS = ("tool_call", "tool_calls", "tools", "tool", "function_call", "function_calls", "call")
_NAME_KEYS = ("name", "tool_name", "tool", "function", "function_name")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")
_OTHER_KEYS = ("type", "id", "tool_call_id", "index")
_KEYS = (*_NAME_KEYS, *_ARGUMENT_KEYS, *_OTHER_KEYS)
_FENCE = re.compile(r"```[a-zA-Z_+-]{0,16}[ \t]*\n?")
_OPEN_TAG = re.compile(rf"<(?:{'|'.join(_TAGS)})>")
_CLOSE_TAG = re.compile(rf"</(?:{'|'.join(_TAGS)})>")
_LONGEST = 24
_NAMED = ("properties", "$defs", "definitions", "dependentSchemas")
"""Keywords of JSON Schema under which a key is a name and no keyword."""
_HEAD = re.compile(r'\{\s*(?:"([^"]*)(?:("\s*)(?::\s*(?:"([^"]*)("?))?)?)?)?')
_SHORT_HEAD = 256
_PYTHON = ('"', "'")


class FoundCall(Struct, frozen=True):
    name: str
    arguments: str
    """A JSON object."""


class BareCalls:
    """Follows an answer from its first character as long as it may be nothing but calls.

    `feed` gives it more text; once `failed`, it is something else. `calls` are read at the end.
    """

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._longest_name = max(map(len, self._tools), default=0)
        self._text = ""
        self._at = 0
        self._scanner: JsonScanner | None = None
        self._started = 0
        self._head_known = False
        self._brackets: list[str] = []
        self._quote = ""
        self._calls: list[FoundCall] = []
        self.failed = not self._tools

    def feed(self, text: str) -> None:
        self._text += text
        while not self.failed and self._at < len(self._text):
            before = (self._at, self._scanner, len(self._brackets))
            self._step()
            if (self._at, self._scanner, len(self._brackets)) == before:
                break

    def calls(self, *, ended: bool) -> list[FoundCall]:
        """The calls of a whole answer; none where it is not exactly calls.

        One that the model itself `ended` may lack the bracket after the last arguments.
        """
        if ended and self._scanner and self._scanner.lacks_brace and self._text[-1] == "}":
            self.feed("}")
        whole = not self.failed and self._scanner is None and not self._brackets
        return self._calls if whole and self._text[self._at :].strip() in ("", "```") else []

    def _step(self) -> None:
        if self._scanner:
            self._json(self._scanner)
        elif self._brackets:
            self._python()
        else:
            self._around()

    def _around(self) -> None:
        """Whitespace, commas, list brackets, fences and tags around calls."""
        rest = self._text[self._at :]
        first = rest[0]
        if first.isspace() or first in ",]" or (first == "[" and not self._calls):
            self._at += 1
            return
        if first == "{":
            self._scanner, self._started, self._head_known = JsonScanner(), self._at, False
            return
        for pattern in (_FENCE, _OPEN_TAG, _CLOSE_TAG):
            match = pattern.match(rest)
            if match:
                # A fence's word may go on.
                if pattern is not _FENCE or match.end() < len(rest):
                    self._at += match.end()
                return
        name = re.match(r"[\w.-]+", rest)
        if name and rest[name.end() : name.end() + 1] == "(" and name[0] in self._tools:
            self._started = self._at
            self._at += name.end() + 1
            self._brackets = [")"]
            return
        if not self._may_begin(rest):
            self.failed = True

    def _may_begin(self, rest: str) -> bool:
        if len(rest) <= _LONGEST:
            tags = [f"<{tag}>" for tag in _TAGS] + [f"</{tag}>" for tag in _TAGS]
            if "```".startswith(rest) or any(tag.startswith(rest) for tag in tags):
                return True
        return len(rest) <= self._longest_name and any(n.startswith(rest) for n in self._tools)

    def _json(self, scanner: JsonScanner) -> None:
        self._at = scanner.scan(self._text, self._at)
        if scanner.failed or not self._head_fits():
            self.failed = True
        elif scanner.done:
            self._take_json(self._text[self._started : self._at])
            self._scanner = None

    def _head_fits(self) -> bool:
        """Whether the object's first key, as far as it came, is one of a call's."""
        if self._head_known:
            return True
        head = _HEAD.match(self._text, self._started, self._started + _SHORT_HEAD)
        if head is None or head[1] is None:
            return True
        key, whole_key, said, closed = head.groups()
        if not whole_key:
            return any(known.startswith(key) for known in _KEYS)
        if key not in _KEYS:
            return False
        if key not in _NAME_KEYS:
            self._head_known = key in _ARGUMENT_KEYS or closed is not None
            return True
        if said is None:
            self._head_known = self._at - self._started > len(head[0])
            return key == "function" or not self._head_known
        self._head_known = bool(closed)
        if closed:
            return said in self._tools
        return any(name.startswith(said) for name in self._tools)

    def _take_json(self, text: str) -> None:
        try:
            value = loads(text)
        except ValueError:
            self.failed = True
            return
        name, arguments = _unwrapped(value)
        self._take(name, arguments)

    def _python(self) -> None:
        """Through the brackets of `name(…)`."""
        while self._at < len(self._text) and self._brackets:
            character = self._text[self._at]
            if self._quote:
                if character == "\\":
                    if self._at + 1 == len(self._text):
                        return
                    self._at += 1
                elif character == self._quote:
                    self._quote = ""
            elif character in _PYTHON:
                self._quote = character
            elif character in "([{":
                self._brackets.append({"(": ")", "[": "]", "{": "}"}[character])
            elif character in ")]}" and self._brackets.pop() != character:
                self.failed = True
                return
            self._at += 1
        if not self._brackets:
            self._take_python(self._text[self._started : self._at])

    def _take_python(self, text: str) -> None:
        name, _, rest = text.partition("(")
        try:
            self._take(name, Literals(rest[:-1], _PYTHON).json("="))
        except ValueError:
            self.failed = True

    def _take(self, name: Any, arguments: Any) -> None:
        tool = self._tools.get(name) if isinstance(name, str) else None
        if isinstance(arguments, str):
            try:
                arguments = loads(arguments or "{}")
            except ValueError:
                arguments = None
        if tool is None or not isinstance(arguments, Mapping) or not fits(arguments, tool):
            self.failed = True
            return
        self._calls.append(FoundCall(tool.name, dumps(arguments)))


def _unwrapped(value: Any) -> tuple[Any, Any]:
    """Name and arguments of the usual spellings; a name of None where it is none of them."""
    if not isinstance(value, Mapping):
        return None, None
    inner = value.get("function")
    if isinstance(inner, Mapping):
        value = inner
    if not value.keys() <= set(_KEYS):
        return None, None
    names = [value[key] for key in _NAME_KEYS if key in value]
    arguments = [value[key] for key in _ARGUMENT_KEYS if key in value]
    if len(names) != 1 or len(arguments) > 1:
        return None, None
    return names[0], arguments[0] if arguments else {}


def fits(arguments: Mapping[str, Any], tool: Tool) -> bool:
    """Whether the arguments are valid, but for the patterns of strings.

    A pattern could take this process forever; and it does not tell a call from other text.
    """
    schema = _without_patterns(tool.parameters)
    known = tool.parameters.get("properties")
    more = tool.parameters.get("additionalProperties") or "patternProperties" in tool.parameters
    if isinstance(known, Mapping) and not more and not arguments.keys() <= known.keys():
        return False
    try:
        validator = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())
        return bool(validator.is_valid(arguments))
    except (jsonschema.SchemaError, referencing.exceptions.Unresolvable):
        return False
    except (RecursionError, TypeError, ValueError, AttributeError, LookupError):
        return False


def _without_patterns(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_patterns(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    dropped = {"pattern", "patternProperties", "format"}
    if "patternProperties" in schema:
        dropped |= {"additionalProperties", "unevaluatedProperties"}
    kept = {}
    for key, member in schema.items():
        if key in _NAMED and isinstance(member, Mapping):
            kept[key] = {name: _without_patterns(one) for name, one in member.items()}
        elif key not in dropped:
            kept[key] = member if key in ("const", "enum") else _without_patterns(member)
    return kept


_BEGIN = r"[ \n]{0,4}(?:```[a-z_]{0,12}[ \n]{1,2})?[ \n]{0,4}\[?[ \n]{0,4}"
_KEY = r'\{[ \n]{0,8}"(?:name|function)": ?'
_ARGUMENTS = r',[ \n]{1,8}"(?:arguments|parameters)": ?'
_TAG = "<|python_tag|>"


def head_pattern(name: str) -> str:
    """A regular expression for what comes before the arguments of a bare JSON call of a tool."""
    return _BEGIN + _object_pattern(name)


def next_pattern(name: str) -> str:
    """The same for one that follows another."""
    return r"[ \n]{0,4},?[ \n]{0,4}" + _object_pattern(name)


def _object_pattern(name: str) -> str:
    return f'{_KEY}"{pattern_of(name)}"{_ARGUMENTS}'


def start_pattern(names: Sequence[str]) -> str:
    """A pattern for all that may begin an answer of bare JSON calls, from nothing on. It has a
    group as soon as the text can be nothing else. Whitespace may stand before it."""
    named = "|".join(map(pattern_of, names))
    steps = (
        (rf"\s{{0,4}}(?:{pattern_of(_TAG)})?", rf"\s{{0,4}}(?:{_begun(_TAG)})"),
        (_BEGIN, r"[ \n]{0,4}(?:`{1,3}[a-z_]{0,12})?"),
        (_KEY, rf'(?:\{{[ \n]{{0,8}}(?:"(?:{_begun("name", "function")})"?:? ?)?)?'),
        (f'"(?:{named})"', r'(?:"[\w.-]{0,128}"?)?'),
        (_ARGUMENTS, rf'(?:,[ \n]{{0,8}}(?:"(?:{_begun("arguments", "parameters")})"?:? ?)?)?'),
    )
    pattern = "((?s:.*))"
    for whole, begun in reversed(steps):
        pattern = f"(?:{whole}{pattern}|{begun})"
    return pattern


def begun_pattern(names: Sequence[str]) -> str:
    """The same for calls that the prompt begins, up to a name."""
    named = "|".join(map(pattern_of, names))
    return rf"(?:(?:{named})(\s(?s:.*))|[\w.-]{{0,128}})"


def _begun(*words: str) -> str:
    """All that a word may begin with."""
    begun = {word[:length] for word in words for length in range(len(word) + 1)}
    return "|".join(map(pattern_of, sorted(begun)))


TAIL = r"/[ \n]{0,4}\]?[ \n]{0,4}(?:```)?/"


def bare_rule(lark: Lark, tools: Mapping[str, str], *, parallel: bool) -> str:
    """An expression for bare JSON calls; `tools` are expressions for arguments by name.

    A model that ends without the last bracket is let to: kept from it, it goes on and on.
    """
    first = " | ".join(
        f"{lark.terminal('HEAD', f'/{head_pattern(name)}/')} {rule}" for name, rule in tools.items()
    )
    close = lark.terminal("CLOSE", r"/[ \n]{0,4}\}/")
    expansion = f"({first})"
    if parallel:
        more = " | ".join(
            f"{lark.terminal('NEXT', f'/{next_pattern(name)}/')} {rule}"
            for name, rule in tools.items()
        )
        expansion += f" ({close} ({more}))*"
    return lark.rule("bare", f"{expansion} ({close} {lark.terminal('TAIL', TAIL)}?)?")
