"""GBNF by definition: which ends an expression can have in a text. No lexer, no automaton."""

from __future__ import annotations

from collections.abc import Mapping

from server.services.grammars.gbnf_reader import (
    Chars,
    Choice,
    Expression,
    Ref,
    Repeat,
    Sequence,
)


class Reference:
    def __init__(self, rules: Mapping[str, Expression]) -> None:
        self._rules = rules

    def accepts(self, text: str) -> bool:
        self._text = text
        self._known: dict[tuple[Expression, int], frozenset[int]] = {}
        return len(text) in self._ends(Ref("root"), 0)

    def _ends(self, node: Expression, at: int) -> frozenset[int]:
        key = (node, at)
        if key not in self._known:
            self._known[key] = frozenset(self._find(node, at))
        return self._known[key]

    def _find(self, node: Expression, at: int) -> set[int]:
        match node:
            case Chars(ranges):
                code = ord(self._text[at]) if at < len(self._text) else -1
                return {at + 1} if any(low <= code <= high for low, high in ranges) else set()
            case Ref(name):
                return set(self._ends(self._rules[name], at))
            case Choice(options):
                return {end for option in options for end in self._ends(option, at)}
            case Sequence(items):
                ends = {at}
                for item in items:
                    ends = {end for start in ends for end in self._ends(item, start)}
                return ends
            case Repeat(item, low, high):
                return self._repeat(item, low, high, at)
        raise AssertionError(node)

    def _repeat(self, item: Expression, low: int, high: int | None, at: int) -> set[int]:
        ends, found, seen = {at}, set[int](), set[int]()
        times = 0
        while ends and (high is None or times <= high):
            if times >= low:
                found |= ends
                ends = ends - seen
                seen |= ends
            ends = {end for start in ends for end in self._ends(item, start)}
            times += 1
        return found
