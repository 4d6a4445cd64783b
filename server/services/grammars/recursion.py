"""Which rules of a grammar lead back to themselves, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from .gbnf_reader import (
    EMPTY,
    MAX_LEVELS,
    Choice,
    Expression,
    GbnfError,
    Ref,
    Repeat,
    Sequence,
    Token,
    children,
    everything,
)

Rules = Mapping[str, Expression]


def check(rules: Rules) -> None:
    """Raises GbnfError for rules that begin with themselves and for rules that never end."""
    # llguidance follows rules into rules on its stack.
    if sum(map(_levels, rules.values())) > MAX_LEVELS:
        raise GbnfError("The grammar has too many rules with groups in groups.")
    nullable = _fixpoint(rules, _is_nullable)
    loop = _cycle({name: _leading(node, nullable) for name, node in rules.items()})
    if loop:
        raise GbnfError(f"The rule {loop[:60]} begins with itself (left recursion).")
    ending = _fixpoint(rules, _is_ending)
    for name in rules:
        if name not in ending:
            raise GbnfError(f"The rule {name[:60]} never ends: it always leads back to itself.")


def regular_rules(rules: Rules) -> frozenset[str]:
    """Those which lead to no recursion and no token."""
    return frozenset(_fixpoint(rules, lambda node, known: _is_regular(node, known)))


def loops_for_tails(rules: Rules) -> dict[str, Expression]:
    """With `list ::= item list | end` as `item* end`."""
    return {name: _loop(name, node) for name, node in rules.items()}


def _loop(name: str, node: Expression) -> Expression:
    options = node.options if isinstance(node, Choice) else (node,)
    before: list[Expression] = []
    ends: list[Expression] = []
    for option in options:
        items = option.items if isinstance(option, Sequence) else (option,)
        if len(items) > 1 and items[-1] == Ref(name):
            option = Sequence(items[:-1])
            before.append(option)
        else:
            ends.append(option)
        if any(part == Ref(name) for part in everything([option])):
            return node
    if not before or not ends:
        return node
    item = before[0] if len(before) == 1 else Choice(tuple(before))
    end = ends[0] if len(ends) == 1 else Choice(tuple(ends))
    loop = Repeat(item, 0, None)
    return loop if end == EMPTY else Sequence((loop, end))


def _fixpoint(rules: Rules, holds: Callable[[Expression, set[str]], bool]) -> set[str]:
    """The least set of rules for which it holds, given that it holds for those in the set."""
    users: dict[str, set[str]] = {name: set() for name in rules}
    for name, node in rules.items():
        for part in everything([node]):
            if isinstance(part, Ref):
                users[part.name].add(name)
    known: set[str] = set()
    waiting = list(rules)
    while waiting:
        name = waiting.pop()
        if name not in known and holds(rules[name], known):
            known.add(name)
            waiting.extend(users[name] - known)
    return known


def _is_nullable(node: Expression, known: set[str]) -> bool:
    match node:
        case Ref(name):
            return name in known
        case Sequence(items):
            return all(_is_nullable(item, known) for item in items)
        case Choice(options):
            return any(_is_nullable(option, known) for option in options)
        case Repeat(item, low, _):
            return low == 0 or _is_nullable(item, known)
    return False


def _is_ending(node: Expression, known: set[str]) -> bool:
    match node:
        case Ref(name):
            return name in known
        case Sequence(items):
            return all(_is_ending(item, known) for item in items)
        case Choice(options):
            return any(_is_ending(option, known) for option in options)
        case Repeat(item, low, _):
            return low == 0 or _is_ending(item, known)
    return True


def _levels(node: Expression) -> int:
    return 1 + max(map(_levels, children(node)), default=0)


def _is_regular(node: Expression, known: set[str]) -> bool:
    return all(
        part.name in known if isinstance(part, Ref) else not isinstance(part, Token)
        for part in everything([node])
    )


def _leading(node: Expression, nullable: set[str]) -> set[str]:
    """The rules an expression may begin with."""
    match node:
        case Ref(name):
            return {name}
        case Choice(options):
            return set().union(*(_leading(option, nullable) for option in options))
        case Repeat(item, _, _):
            return _leading(item, nullable)
        case Sequence(items):
            found: set[str] = set()
            for item in items:
                found |= _leading(item, nullable)
                if not _is_nullable(item, nullable):
                    break
            return found
    return set()


def _cycle(edges: Mapping[str, Iterable[str]]) -> str | None:
    """Some node that leads to itself."""
    done: set[str] = set()
    for start in edges:
        path = [(start, iter(edges[start]))]
        on_path = {start}
        while path:
            name, rest = path[-1]
            following = next(rest, None) if name not in done else None
            if following is None:
                path.pop()
                on_path.discard(name)
                done.add(name)
            elif following in on_path:
                return following
            elif following not in done:
                path.append((following, iter(edges[following])))
                on_path.add(following)
    return None
