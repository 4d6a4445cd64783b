"""What can begin, continue and end a regular part of a grammar, on classes of characters.

Characters that no part of the grammar tells apart are one class; a set of classes is an int.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .gbnf_reader import Chars, Choice, Expression, Ref, Repeat, Sequence, Token
from .lark import Ranges

MAX_POSITIONS = 1_500
MAX_PAIRS = 4_000
MAX_DEPTH = 150


class TooLarge(Exception):
    pass


class Classes:
    def __init__(self, ranges: Iterable[Ranges]) -> None:
        edges = {edge for spans in ranges for low, high in spans for edge in (low, high + 1)}
        self._index = {edge: i for i, edge in enumerate(sorted(edges))}
        self._known: dict[Ranges, int] = {}
        self._tokens: dict[str, int] = {}

    def of(self, ranges: Ranges) -> int:
        if ranges not in self._known:
            self._known[ranges] = sum(
                (1 << self._index[high + 1]) - (1 << self._index[low]) for low, high in ranges
            )
        return self._known[ranges]

    def of_token(self, text: str) -> int:
        """A negated token may be any text."""
        own = self._tokens.setdefault(text, 1 << (len(self._index) + len(self._tokens)))
        return own | ((1 << len(self._index)) - 1 if text.startswith("<[^") else 0)


class Automaton:
    """Positions of the characters of one expression (Glushkov). A repetition's count is left out:
    the language is that or larger."""

    def __init__(
        self, expression: Expression, rules: Mapping[str, Expression], classes: Classes
    ) -> None:
        self._rules = rules
        self._classes = classes
        self.chars: list[int] = []
        self._following: list[set[int]] = []
        self._depth = 0
        self.nullable, first, last = self._build(expression)
        self.first, self._last = frozenset(first), frozenset(last)

    @property
    def first_chars(self) -> int:
        return self.any_of(self.first)

    def accepts(self, positions: Iterable[int]) -> bool:
        return not self._last.isdisjoint(positions)

    def after(self, positions: frozenset[int]) -> frozenset[int]:
        return frozenset().union(*(self._following[position] for position in positions))

    def any_of(self, positions: Iterable[int]) -> int:
        mask = 0
        for position in positions:
            mask |= self.chars[position]
        return mask

    def _build(self, node: Expression) -> tuple[bool, set[int], set[int]]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TooLarge
        built = self._built(node)
        self._depth -= 1
        return built

    def _built(self, node: Expression) -> tuple[bool, set[int], set[int]]:
        match node:
            case Chars(ranges):
                return self._position(self._classes.of(ranges))
            case Token(text):
                return self._position(self._classes.of_token(text))
            case Ref(name):
                return self._build(self._rules[name])
            case Choice(options):
                built = [self._build(option) for option in options]
                return (
                    any(nullable for nullable, _, _ in built),
                    set().union(*(first for _, first, _ in built)),
                    set().union(*(last for _, _, last in built)),
                )
            case Repeat(item, low, high):
                nullable, first, last = self._build(item)
                if high == 0:
                    return True, set(), set()
                if high != 1:
                    self._link(last, first)
                return nullable or low == 0, first, last
            case Sequence(items):
                return self._sequence(items)

    def _sequence(self, items: tuple[Expression, ...]) -> tuple[bool, set[int], set[int]]:
        nullable, first, last = True, set[int](), set[int]()
        for item in items:
            item_nullable, item_first, item_last = self._build(item)
            self._link(last, item_first)
            first = first | item_first if nullable else first
            last = last | item_last if item_nullable else item_last
            nullable = nullable and item_nullable
        return nullable, first, last

    def _position(self, mask: int) -> tuple[bool, set[int], set[int]]:
        if len(self.chars) >= MAX_POSITIONS:
            raise TooLarge
        self.chars.append(mask)
        self._following.append(set())
        return False, {len(self.chars) - 1}, {len(self.chars) - 1}

    def _link(self, last: set[int], first: set[int]) -> None:
        for position in last:
            self._following[position] |= first


def overlap(one: Automaton, other: Automaton) -> bool:
    """Whether some text that is not empty may be both."""
    return any(one.accepts(here) and other.accepts(there) for here, there in _together(one, other))


def outruns(one: Automaton, other: Automaton, next_chars: int) -> bool:
    """Whether after a whole `one` and a character of `next_chars` a text may still be an `other`:
    a lexer that takes the longest match would then miss the end of `one`."""
    return any(
        one.accepts(here) and bool(other.any_of(other.after(there)) & next_chars)
        for here, there in _together(one, other)
    )


def _together(one: Automaton, other: Automaton) -> Iterable[tuple[frozenset[int], frozenset[int]]]:
    """The sets of positions in which both can be after the same text. Raises TooLarge."""
    start = (one.first, other.first)
    seen = {start}
    waiting = [start]
    while waiting:
        here, there = waiting.pop()
        for mask in _parts([*(one.chars[i] for i in here), *(other.chars[i] for i in there)]):
            at = frozenset(i for i in here if one.chars[i] & mask)
            to = frozenset(i for i in there if other.chars[i] & mask)
            if not at or not to:
                continue
            yield at, to
            following = (one.after(at), other.after(to))
            if following not in seen:
                if len(seen) > MAX_PAIRS:
                    raise TooLarge
                seen.add(following)
                waiting.append(following)


def _parts(masks: list[int]) -> list[int]:
    """The masks cut into parts of which none is cut by another."""
    parts: list[int] = []
    for mask in dict.fromkeys(masks):
        rest = mask
        cut: list[int] = []
        for part in parts:
            common = part & rest
            if common:
                cut.extend(piece for piece in (common, part & ~common) if piece)
                rest &= ~common
            else:
                cut.append(part)
        parts = [*cut, rest] if rest else cut
    return parts
