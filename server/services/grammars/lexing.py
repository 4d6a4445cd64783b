"""Cuts a context-free grammar over characters into terminals.

llguidance, like every lexer, takes the longest match of what it may read next. A terminal is safe
where that is the only reading: once it may end and the next character begins what follows, nothing
that could be read in its place goes on with that character. The largest parts that are safe become
terminals; down to single characters, which always are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from .automaton import Automaton, Classes, TooLarge, together
from .gbnf_reader import Chars, Choice, Expression, Ref, Repeat, Sequence, Token, everything
from .lark import Ranges

MAX_WORK = 500_000
"""Each about a microsecond."""
MAX_RUN = 100


class Terminal(Struct, frozen=True):
    """A regular part."""

    expression: Expression


class Rule(Struct, frozen=True):
    name: str


class Joined(Struct, frozen=True):
    items: tuple[Part, ...]


class Either(Struct, frozen=True):
    options: tuple[Part, ...]


class Repeated(Struct, frozen=True):
    item: Part
    low: int
    high: int | None


Part = Terminal | Rule | Joined | Either | Repeated | Token


def cut(rules: Mapping[str, Expression], regular: frozenset[str]) -> dict[str, Part]:
    """The rules that are needed, `root` first. `regular` are those which lead to no recursion and
    no token."""
    cutter = _Cutter(rules, set(regular))
    budget = [MAX_WORK]
    try:
        while True:
            parts = cutter.parts()
            unsafe = _Positions(parts, cutter.automaton, budget).unsafe()
            if not unsafe:
                return parts
            for expression in unsafe:
                cutter.split(expression)
    except TooLarge:
        return cutter.parts(whole=False)


class _Cutter:
    def __init__(self, rules: Mapping[str, Expression], regular: set[str]) -> None:
        self._rules = rules
        self._regular = regular
        self._split: set[Expression] = set()
        self._automata: dict[Expression, Automaton | None] = {}
        self.classes = Classes(_ranges(rules.values()))

    def automaton(self, expression: Expression) -> Automaton | None:
        """None where it is too large to look at."""
        if expression not in self._automata:
            try:
                built = Automaton(expression, self._rules, self.classes)
            except TooLarge:
                built = None
            self._automata[expression] = built
        return self._automata[expression]

    def split(self, expression: Expression) -> None:
        self._split.add(expression)
        if isinstance(expression, Ref):
            self._regular.discard(expression.name)

    def parts(self, *, whole: bool = True) -> dict[str, Part]:
        if not whole:
            self._regular.clear()
            self._split.update(everything(self._rules.values()))
        found: dict[str, Part] = {}
        waiting = ["root"]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = self._part(self._rules[name], waiting)
        return found

    def _part(self, node: Expression, waiting: list[str]) -> Part:
        if self._is_terminal(node):
            return Terminal(node)
        match node:
            case Ref(name):
                waiting.append(name)
                return Rule(name)
            case Choice(options):
                return Either(
                    tuple(self._part(option, waiting) for option in self._merged(options))
                )
            case Repeat(item, low, high):
                return Repeated(self._part(item, waiting), low, high)
            case Sequence(items):
                return Joined(tuple(self._part(item, waiting) for item in self._runs(items)))
            case Token():
                return node
            case Chars():
                return Terminal(node)

    def _is_terminal(self, node: Expression) -> bool:
        if isinstance(node, Chars):
            return True
        return (
            node not in self._split and self._is_regular(node) and self.automaton(node) is not None
        )

    def _is_regular(self, node: Expression) -> bool:
        match node:
            case Ref(name):
                return name in self._regular
            case Choice(items) | Sequence(items):
                return all(map(self._is_regular, items))
            case Repeat(item, _, _):
                return self._is_regular(item)
        return isinstance(node, Chars)

    def _merged(self, options: tuple[Expression, ...]) -> list[Expression]:
        """With all options that may be terminals as one."""
        whole = [option for option in options if self._is_terminal(option)]
        group = Choice(tuple(whole))
        if len(whole) < 2 or len(whole) == len(options) or not self._is_terminal(group):
            return list(options)
        return [group, *(option for option in options if not self._is_terminal(option))]

    def _runs(self, items: tuple[Expression, ...]) -> list[Expression]:
        """With neighbours that may be terminals as one."""
        found: list[Expression] = []
        run: list[Expression] = []
        for item in items:
            if not self._is_terminal(item):
                found.extend([*self._run(run, items), item])
                run = []
            elif len(run) < MAX_RUN:
                run.append(item)
            else:
                found.extend(self._run(run, items))
                run = [item]
        return [*found, *self._run(run, items)]

    def _run(self, run: list[Expression], items: tuple[Expression, ...]) -> list[Expression]:
        group = Sequence(tuple(run))
        whole = 1 < len(run) < len(items) and self._is_terminal(group)
        return [group] if whole else run


class _Positions:
    """Where terminals stand in the rules and which can follow which; sets of positions are ints."""

    def __init__(
        self,
        parts: Mapping[str, Part],
        automaton: Callable[[Expression], Automaton | None],
        budget: list[int],
    ) -> None:
        self._parts = parts
        self._automaton = automaton
        self._budget = budget
        self._first: dict[str, tuple[bool, int]] = dict.fromkeys(parts, (False, 0))
        self._after_rule: dict[str, int] = dict.fromkeys(parts, 0)
        self._expressions: list[Expression] = []
        self._number: dict[tuple[str, int], int] = {}
        self._following: list[int] = []
        self._beginnings: dict[int, int] = {}
        self._solve()

    def unsafe(self) -> list[Expression]:
        """Terminals, longer than one character, that the longest match gets wrong. Raises TooLarge
        where that takes too long to see."""
        found: dict[Expression, None] = {}
        start = self._first["root"][1]
        seen, waiting = {start}, [start]
        while waiting and not found:
            positions: dict[Expression, int] = {}
            for position in _bits(waiting.pop()):
                expression = self._expressions[position]
                positions[expression] = positions.get(expression, 0) | self._following[position]
            for following in self._read(positions, found):
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
        return list(found)

    def _read(
        self, following: Mapping[Expression, int], found: dict[Expression, None]
    ) -> list[int]:
        """The positions after each text that these terminals can be, by which of them it is."""
        expressions = list(following)
        automata = [self._known(expression) for expression in expressions]
        next_chars = [self._first_chars(after) for after in following.values()]
        groups: set[tuple[int, ...]] = set()
        for after in together(automata, self._budget):
            groups.add(after.whole)
            wanted = _union(next_chars[i] for i in after.whole)
            clashing = [i for i, onward in enumerate(after.onward) if onward & wanted]
            if clashing:
                for i in {*after.whole, *clashing}:
                    if not isinstance(expressions[i], Chars | Token):
                        found[expressions[i]] = None
        after_each = list(following.values())
        return [_union(after_each[i] for i in group) for group in groups]

    def _first_chars(self, positions: int) -> int:
        if positions not in self._beginnings:
            places = _bits(positions)
            self._spend(len(places))
            self._beginnings[positions] = _union(
                self._known(self._expressions[place]).first_chars for place in places
            )
        return self._beginnings[positions]

    def _spend(self, cost: int) -> None:
        self._budget[0] -= cost
        if self._budget[0] < 0:
            raise TooLarge

    def _known(self, expression: Expression) -> Automaton:
        automaton = self._automaton(expression)
        assert automaton is not None
        return automaton

    def _solve(self) -> None:
        """First and following sets, until they no longer grow. In turn from the last rule to the
        first and back: what may come first is known of later rules, what follows of earlier ones.
        """
        names = list(self._parts)
        while True:
            before = (dict(self._first), dict(self._after_rule), list(self._following))
            for name in names:
                self._place = name
                self._count = 0
                self._first[name] = self._walk(self._parts[name], self._after_rule[name])
            if before == (self._first, self._after_rule, self._following):
                return
            names.reverse()

    def _walk(self, part: Part, following: int) -> tuple[bool, int]:
        """Whether it may be empty, and the positions it can begin with."""
        self._spend(1)
        match part:
            case Terminal(expression):
                return self._position(expression, following)
            case Token():
                return self._position(part, following)
            case Rule(name):
                self._after_rule[name] |= following
                return self._first[name]
            case Either(options):
                found = [self._walk(option, following) for option in options]
                return any(empty for empty, _ in found), _union(first for _, first in found)
            case Repeated(item, low, high):
                count = self._count
                empty, first = self._walk(item, following)
                if high != 1:
                    self._count = count
                    empty, first = self._walk(item, following | first)
                return empty or low == 0, first
            case Joined(items):
                empty, first = True, 0
                for item in reversed(items):
                    after = first | (following if empty else 0)
                    item_empty, item_first = self._walk(item, after)
                    first = item_first | (first if item_empty else 0)
                    empty = empty and item_empty
                return empty, first
        raise AssertionError(part)

    def _position(self, expression: Expression, following: int) -> tuple[bool, int]:
        number = self._number.setdefault((self._place, self._count), len(self._expressions))
        self._count += 1
        if number == len(self._expressions):
            self._expressions.append(expression)
            self._following.append(0)
        self._following[number] |= following
        return self._known(expression).nullable, 1 << number


def _ranges(expressions: Iterable[Expression]) -> list[Ranges]:
    return [node.ranges for node in everything(expressions) if isinstance(node, Chars)]


def _bits(mask: int) -> list[int]:
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


def _union(masks: Iterable[int]) -> int:
    union = 0
    for mask in masks:
        union |= mask
    return union
