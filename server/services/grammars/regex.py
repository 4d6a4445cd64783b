"""Regular expressions as clients write them (JSON Schema, Python, JavaScript) for llguidance.

Where the dialects differ the result matches what all of them do; what they read differently, and
what a finite automaton cannot do (lookaround, back-references), is refused by name.
"""

from __future__ import annotations

import re

from msgspec import Struct

from .lark import character

MAX_PATTERN = 8192
MAX_DEPTH = 64
MAX_REPEAT = 100_000
MAX_BRANCHES = 64
MAX_PIECES = 20_000

_ANY = r"[\u{0}-\u{10ffff}]"
_DOT = r"[^\n\r\u{2028}\u{2029}]"
_SPACE = r" \t-\r\u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}"
_MAYBE_SPACE = _SPACE + r"\u{1c}-\u{1f}\u{85}\u{180e}\u{feff}"
_MAYBE_WORD = r"\p{Alphabetic}\p{M}\p{N}\p{Pc}\p{Join_Control}"
_CLASSES = {
    "d": "[0-9]",
    "D": r"[^\p{N}]",
    "w": "[0-9A-Za-z_]",
    "W": f"[^{_MAYBE_WORD}]",
    "s": f"[{_SPACE}]",
    "S": f"[^{_MAYBE_SPACE}]",
}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "a": 7}
_HEX = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}")
_REPEAT = re.compile(r"\{(\d{1,9})(,(\d{0,9}))?\}")
_PROPERTY = re.compile(r"[pP]\{([A-Za-z_]{1,40}(?:=[A-Za-z_]{1,40})?)\}")
_GROUP = re.compile(r"\?(?:P?<[A-Za-z_]\w{0,99}>|(?P<flags>[a-z]*):)", re.ASCII)
_LOOK = {"?=": "lookahead", "?!": "lookahead", "?<=": "lookbehind", "?<!": "lookbehind"}
_DECIMAL = re.compile(
    r"\^\(\?!\^\[-\+\.\]\*\$\)\[\+-\]\?0\*"
    r"(?:\(\?:\\d\{0,(?P<digits>\d{1,3})\}\|.*\)|\\d\*\\\.\?\\d(?:\*|\{0,(?P<places>\d{1,3})\}0\*)\$)"
)


class RegexError(ValueError):
    """What cannot be translated, in words that follow "the pattern …"."""


class _Piece(Struct, frozen=True):
    """Text that matches by itself and never holds an anchor."""

    text: str


class _Anchor(Struct, frozen=True):
    start: bool


class _Choice(Struct, frozen=True):
    """A group. Only one with an anchor somewhere inside is kept apart."""

    branches: tuple[_Sequence, ...]


_Item = _Piece | _Anchor | _Choice
_Sequence = tuple[_Item, ...]


def translate(pattern: str, *, search: bool) -> str:
    """A regular expression of llguidance that matches whole texts: those which `pattern` matches,
    or with `search` those which hold a match. Raises RegexError."""
    if len(pattern) > MAX_PATTERN:
        raise RegexError(f"is longer than {MAX_PATTERN} characters")
    if any("\ud800" <= char <= "\udfff" for char in pattern):
        raise RegexError("holds half of a surrogate pair")
    decimal = _pydantic_decimal(pattern)
    if decimal is not None:
        return decimal
    branches = [
        _without_anchors(branch, search) for branch in _lifted(_Reader(pattern).read().branches)
    ]
    return "|".join(branches)


def _pydantic_decimal(pattern: str) -> str | None:
    """Pydantic writes Decimal with a lookahead that only keeps texts without a digit out."""
    match = _DECIMAL.fullmatch(pattern)
    if match is None:
        return None
    if match["digits"]:
        whole = f"{{1,{max(1, int(match['digits']))}}}"
        return f"[+-]?[0-9]{whole}"
    places = f"{{1,{match['places']}}}" if match["places"] not in (None, "0") else "+"
    return "[+-]?[0-9]+" if match["places"] == "0" else rf"[+-]?[0-9]+(?:\.[0-9]{places})?"


def _lifted(branches: tuple[_Sequence, ...]) -> list[_Sequence]:
    """Branches in which anchors stand outside of groups, as `(^a|b)$` becomes `^a$|b$`."""
    done: list[_Sequence] = []
    waiting = list(reversed(branches))
    while waiting:
        branch = waiting.pop()
        group = next((i for i, item in enumerate(branch) if isinstance(item, _Choice)), None)
        if group is None:
            done.append(branch)
        else:
            item = branch[group]
            assert isinstance(item, _Choice)
            waiting.extend(
                branch[:group] + option + branch[group + 1 :] for option in reversed(item.branches)
            )
        if len(done) + len(waiting) > MAX_BRANCHES:
            raise RegexError("has too many alternatives with ^ or $ in them")
    return done


def _without_anchors(branch: _Sequence, search: bool) -> str:
    start, end = 0, len(branch)
    while start < end and branch[start] == _Anchor(True):
        start += 1
    while start < end and branch[end - 1] == _Anchor(False):
        end -= 1
    inner = branch[start:end]
    texts = [item.text for item in inner if isinstance(item, _Piece)]
    if len(texts) < len(inner):
        raise RegexError("has ^ or $ in its middle; anchors can only stand at its ends")
    before = f"{_ANY}*" if search and start == 0 else ""
    after = f"{_ANY}*" if search and end == len(branch) else ""
    return f"{before}{''.join(texts)}{after}"


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0
        self._depth = 0
        self._pieces = 0

    def read(self) -> _Choice:
        flags = re.compile(r"\(\?([a-z]+)\)").match(self._text)
        if flags:
            self._at = flags.end()
            rest = self._flagged(flags[1])
        else:
            rest = self._alternatives(fold=False, dot_all=False)
        if self._at < len(self._text):
            raise RegexError(f"has an unmatched ) at character {self._at}")
        return rest

    def _flagged(self, flags: str) -> _Choice:
        unknown = set(flags) - set("isua")
        if unknown:
            raise RegexError(f"uses the flag {min(unknown)}, which is not supported")
        return self._alternatives(fold="i" in flags, dot_all="s" in flags)

    def _alternatives(self, *, fold: bool, dot_all: bool) -> _Choice:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise RegexError(f"nests groups deeper than {MAX_DEPTH}")
        branches = [self._sequence(fold, dot_all)]
        while self._take("|"):
            branches.append(self._sequence(fold, dot_all))
        self._depth -= 1
        return _Choice(tuple(branches))

    def _sequence(self, fold: bool, dot_all: bool) -> _Sequence:
        items: list[_Item] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            self._pieces += 1
            if self._pieces > MAX_PIECES:
                raise RegexError("is too large")
            items.append(self._repeated(self._item(fold, dot_all)))
        return tuple(items)

    def _item(self, fold: bool, dot_all: bool) -> _Item:
        char = self._text[self._at]
        self._at += 1
        match char:
            case "^" | "$":
                return _Anchor(char == "^")
            case ".":
                return _Piece(_ANY if dot_all else _DOT)
            case "(":
                return self._group(fold, dot_all)
            case "[":
                return _Piece(_folded(self._class(), fold))
            case "\\":
                return self._escape(fold)
            case "*" | "+" | "?":
                raise RegexError(f"has a {char} with nothing to repeat")
        return _Piece(_folded(character(ord(char)), fold))

    def _repeated(self, item: _Item) -> _Item:
        quantifier = self._quantifier()
        if not quantifier:
            return item
        if self._take("+"):
            raise RegexError("uses a possessive quantifier, which is not supported")
        self._take("?")
        if self._quantifier():
            raise RegexError("repeats a repetition; put a group around the inner one")
        if not isinstance(item, _Piece):
            raise RegexError("repeats ^ or $")
        return _Piece(f"(?:{item.text}){quantifier}")

    def _quantifier(self) -> str:
        rest = self._text[self._at : self._at + 1]
        if rest and rest in "*+?":
            self._at += 1
            return rest
        if self._text.startswith("{,", self._at):
            raise RegexError("uses {,n}, which dialects read differently; write {0,n}")
        match = _REPEAT.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        low, high = int(match[1]), int(match[3]) if match[3] else None
        if max(low, high or 0) > MAX_REPEAT:
            raise RegexError(f"repeats more than {MAX_REPEAT} times")
        if high is not None and high < low:
            raise RegexError(f"has a repetition of {low} to {high} times")
        return f"{{{low}{',' if match[2] else ''}{'' if high is None else high}}}"

    def _group(self, fold: bool, dot_all: bool) -> _Item:
        opened = self._at
        if self._text.startswith("?", self._at):
            for mark, name in _LOOK.items():
                if self._text.startswith(mark, self._at):
                    raise RegexError(f"uses a {name}, which is not supported")
            match = _GROUP.match(self._text, self._at)
            if match is None:
                raise RegexError(
                    f"has a group of an unsupported kind at character {opened}; use (…) or (?:…)"
                )
            self._at = match.end()
            flags = match["flags"] or ""
            if set(flags) - set("isu"):
                raise RegexError(f"uses the flags {flags} in a group")
            fold, dot_all = fold or "i" in flags, dot_all or "s" in flags
        choice = self._alternatives(fold=fold, dot_all=dot_all)
        if not self._take(")"):
            raise RegexError(f"has an unmatched ( at character {opened - 1}")
        if any(not isinstance(item, _Piece) for branch in choice.branches for item in branch):
            return choice
        return _Piece(f"(?:{'|'.join(map(_joined, choice.branches))})")

    def _escape(self, fold: bool) -> _Item:
        char = self._text[self._at : self._at + 1]
        if char and char in "AZz":
            self._at += 1
            return _Anchor(char == "A")
        if char and char in "bB":
            raise RegexError("uses a word boundary (\\b), which is not supported")
        if char == "k" or (char.isdigit() and char != "0"):
            raise RegexError("uses a back-reference, which is not supported")
        found = self._class_escape()
        return _Piece(found if isinstance(found, str) else _folded(character(found), fold))

    def _class_escape(self) -> str | int:
        """A whole class as text, or the code of one character."""
        match = _PROPERTY.match(self._text, self._at)
        if match:
            self._at = match.end()
            return f"\\{match[0]}"
        match = _HEX.match(self._text, self._at)
        if match:
            self._at = match.end()
            return self._code(int(match[1] or match[2] or match[3], 16))
        char = self._text[self._at : self._at + 1]
        self._at += 1
        if char in _CLASSES and char:
            return _CLASSES[char]
        if char in _CONTROLS and char:
            return _CONTROLS[char]
        if char == "0" and not self._text[self._at : self._at + 1].isdigit():
            return 0
        if not char or char.isalnum():
            raise RegexError(f"has an unsupported escape \\{char}")
        return ord(char)

    def _code(self, code: int) -> int:
        if 0xD800 <= code <= 0xDBFF:
            low = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})").match(self._text, self._at)
            if low:
                self._at = low.end()
                return 0x10000 + (code - 0xD800 << 10) + int(low[1], 16) - 0xDC00
        if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
            raise RegexError(f"names the code point {code:x}, which is no character")
        return code

    def _class(self) -> str:
        opened = self._at
        negated = self._take("^")
        if self._text.startswith("]", self._at):
            raise RegexError("has an empty class or one that begins with ]; write \\]")
        parts: list[str] = []
        while not self._take("]"):
            if self._text.startswith("[:", self._at):
                raise RegexError("has [: in a class, which dialects read differently")
            low = self._class_member(opened)
            if self._ranges():
                self._at += 1
                high = self._class_member(opened)
                if isinstance(low, str) or isinstance(high, str):
                    raise RegexError("has a range whose end is a class")
                if high < low:
                    raise RegexError(f"has a range from {chr(low)!r} to the lower {chr(high)!r}")
                parts.append(f"{character(low)}-{character(high)}")
            else:
                parts.append(low if isinstance(low, str) else character(low))
        return f"[{'^' if negated else ''}{''.join(parts)}]"

    def _ranges(self) -> bool:
        rest = self._text[self._at : self._at + 2]
        return len(rest) == 2 and rest[0] == "-" and rest[1] != "]"

    def _class_member(self, opened: int) -> str | int:
        char = self._text[self._at : self._at + 1]
        if not char:
            raise RegexError(f"has an unmatched [ at character {opened - 1}")
        self._at += 1
        if char != "\\":
            return ord(char)
        if self._take("b"):
            return 8
        return self._class_escape()

    def _take(self, char: str) -> bool:
        if self._text.startswith(char, self._at):
            self._at += len(char)
            return True
        return False


def _joined(branch: _Sequence) -> str:
    return "".join(item.text for item in branch if isinstance(item, _Piece))


def _folded(text: str, fold: bool) -> str:
    return f"(?i:{text})" if fold else text
