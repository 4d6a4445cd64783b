"""What can begin, continue and end a regular part of a grammar, on classes of characters.

Characters that no part of the grammar tells apart are one class; a set of classes is an int.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as List
from typing import NamedTuple

from .gbnf_reader import Chars, Choice, Expression, Ref, Repeat, Sequence, Token
from .lark import Ranges

MAX_POSITIONS = 500
MAX_LINKS = 20_000
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
        self._links = 0
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
        self._links += len(last) * len(first)
        if self._links > MAX_LINKS:
            raise TooLarge
        for position in last:
            self._following[position] |= first


class After(NamedTuple):
    """What several automata read at once can be after the same text, by their places in a list."""

    whole: tuple[int, ...]
    onward: tuple[int, ...]
    """For each the characters that it can go on with."""


def together(automata: List[Automaton], budget: list[int]) -> Iterator[After]:
    """Every state after a text that is not empty in which some are whole. Raises TooLarge when the
    work left in `budget`, each about a microsecond, is used up."""
    start = tuple(automaton.first for automaton in automata)
    seen, waiting = {start}, [start]
    while waiting:
        state = waiting.pop()
        masks = [
            automaton.chars[i] for automaton, at in zip(automata, state, strict=True) for i in at
        ]
        for mask in _parts(masks):
            budget[0] -= 4 * len(automata) + len(masks)
            if budget[0] < 0:
                raise TooLarge
            reached = [
                frozenset(i for i in at if automaton.chars[i] & mask)
                for automaton, at in zip(automata, state, strict=True)
            ]
            following = tuple(
                automaton.after(at) for automaton, at in zip(automata, reached, strict=True)
            )
            whole = tuple(i for i, at in enumerate(reached) if automata[i].accepts(at))
            if whole:
                yield After(whole, tuple(automata[i].any_of(at) for i, at in enumerate(following)))
            if following not in seen and any(following):
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
