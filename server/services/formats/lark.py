"""A grammar in the making: rules and terminals of llguidance's Lark dialect."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

_ESCAPED = re.compile(r"[\\.+*?()|\[\]{}^$/]")
_LETTERS = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def pattern_of(text: str) -> str:
    """A regular expression for exactly `text`, to stand between slashes."""
    escaped = _ESCAPED.sub(r"\\\g<0>", text)
    return "".join(_LETTERS.get(character, character) for character in escaped)


class Lark:
    """Control tokens of the model, by spelling, stand in a grammar as ids and never in terminals.

    `used` are the ids that became part of it.
    """

    def __init__(self, special_tokens: Mapping[str, int]) -> None:
        self._special = special_tokens
        spellings = sorted(special_tokens, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, spellings)) or '(?!)'})")
        self._names: dict[str, str] = {}
        self._lines: list[str] = []

    def is_control(self, text: str) -> bool:
        """Whether `text` begins with a control token."""
        return bool(self._special) and self._split.match(text) is not None

    def has_control(self, text: str) -> bool:
        return bool(self._special) and self._split.search(text) is not None

    def controls(self, texts: Iterable[str]) -> tuple[int, ...]:
        """The control tokens that `texts` spell."""
        if not self._special:
            return ()
        found = [self._special[word] for text in texts for word in self._split.findall(text)]
        return tuple(dict.fromkeys(found))

    def rule(self, name: str, expansion: str, options: str = "") -> str:
        """The name of a rule for `expansion`; one that is there already serves again."""
        return self._define(name, options, expansion)

    def terminal(self, name: str, expansion: str) -> str:
        return self._define(name.upper(), "", expansion)

    def _define(self, name: str, options: str, expansion: str) -> str:
        known = self._names.get(options + expansion)
        if known and known.isupper() == name.isupper():
            return known
        unique = f"{name}_{len(self._lines)}"
        self._names[options + expansion] = unique
        self._lines.append(f"{unique}{options}: {expansion}")
        return unique

    def text(self, text: str) -> str:
        """An expression for exactly `text`; empty for none."""
        parts = self._split.split(text) if self._special else [text]
        return " ".join(
            f"<[{self._special[part]}]>"
            if i % 2
            else json.dumps(part, ensure_ascii=False).replace("\\u007f", "\x7f")
            for i, part in enumerate(parts)
            if part
        )

    @property
    def anything(self) -> str:
        """A terminal for any text but none, without control tokens."""
        return self.terminal("ANYTHING", "/(?s:.+)/")

    def until(self, stop: str) -> str:
        """An expression for any text to the first `stop`, and that."""
        parts = self._split.split(stop) if self._special else [stop]
        if len(parts) > 1:
            return f"{self.anything}? {self.text(stop.removeprefix(parts[0]))}"
        return self.rule("until", f"/(?s:.*){pattern_of(stop)}/", "[lazy]")

    def without(self, texts: Iterable[str] = (), patterns: Iterable[str] = ()) -> str:
        """A terminal for text that holds none of `texts` and does not begin like `patterns`."""
        parts = ["/(?s:.+)/"]
        parts += [f"~/(?s:.*){pattern_of(text)}(?s:.*)/" for text in texts]
        parts += [f"~/(?:{pattern})(?s:.*)/" for pattern in patterns]
        return self.terminal("TEXT", " & ".join(parts))

    def render(self, start: str, fragment: str = "") -> str:
        lines = [f"start: {start}", *self._lines]
        return "\n".join(lines) + "\n" + fragment
