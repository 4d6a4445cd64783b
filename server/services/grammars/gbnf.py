"""GBNF, llama.cpp's grammars, in Lark.

GBNF speaks of characters and llguidance of terminals, of which it takes the longest match. A
grammar without recursion becomes one terminal; in others `lexing` finds the parts for which the
longest match changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from server.core.errors import InvalidRequest

from .gbnf_reader import (
    Chars,
    Choice,
    Expression,
    GbnfError,
    Ref,
    Repeat,
    Sequence,
    Token,
    read,
)
from .lark import character_class, string
from .lexing import Either, Joined, Part, Repeated, Rule, Terminal, cut
from .recursion import check, loops_for_tails, regular_rules


def gbnf_body(text: str, *, param: str) -> str:
    """The whole text is what `root` describes. Raises InvalidRequest that names the line."""
    try:
        rules = read(text)
        check(rules)
    except GbnfError as error:
        raise InvalidRequest(str(error), param=param, code="invalid_grammar") from error
    rules = loops_for_tails(rules)
    writer = _Writer(rules)
    regular = regular_rules(rules)
    if "root" in regular:
        return writer.text({"root": Terminal(Ref("root"))})
    return writer.text(cut(rules, regular))


class _Writer:
    def __init__(self, rules: Mapping[str, Expression]) -> None:
        self._rules = rules
        self._numbers = {name: i for i, name in enumerate(rules)}
        self._terminals: dict[Expression, str] = {}

    def text(self, parts: Mapping[str, Part]) -> str:
        lines = [f"{self._rule(name)}: {self._part(part)}" for name, part in parts.items()]
        written = 0
        while written < len(self._terminals):
            expression, name = list(self._terminals.items())[written]
            inner = self._rules[expression.name] if isinstance(expression, Ref) else expression
            lines.append(f"{name}: {self._inside(inner)}")
            written += 1
        return "\n".join(lines) + "\n"

    def _rule(self, name: str) -> str:
        return "body" if name == "root" else f"body_{self._numbers[name]}"

    def _part(self, part: Part) -> str:
        match part:
            case Terminal(Chars(ranges)):
                return f"/{character_class(ranges)}/"
            case Terminal(expression):
                return self._terminal(expression)
            case Token(text):
                return text
            case Rule(name):
                return self._rule(name)
            case Joined(items):
                return " ".join(map(self._grouped, items)) or '""'
            case Either(options):
                return " | ".join(map(self._grouped, options))
            case Repeated(item, low, high):
                return f"({self._part(item)}){_count(low, high)}"

    def _grouped(self, part: Part) -> str:
        text = self._part(part)
        return f"({text})" if isinstance(part, Joined | Either) else text

    def _terminal(self, expression: Expression) -> str:
        name = f"BODY_{len(self._terminals)}"
        return self._terminals.setdefault(expression, name)

    def _inside(self, node: Expression) -> str:
        """Within a terminal."""
        match node:
            case Chars(ranges):
                return f"/{character_class(ranges)}/"
            case Ref():
                return self._terminal(node)
            case Choice(options):
                return "(" + " | ".join(map(self._inside, options)) + ")"
            case Repeat(item, low, high):
                return f"({self._inside(item)}){_count(low, high)}"
            case Sequence(items):
                literal = _literal(items)
                if literal is not None:
                    return string(literal)
                return "(" + " ".join(map(self._inside, items)) + ")"
        raise AssertionError(node)


def _literal(items: tuple[Expression, ...]) -> str | None:
    text = ""
    for item in items:
        if not isinstance(item, Chars) or len(item.ranges) > 1:
            return None
        low, high = item.ranges[0]
        if low != high:
            return None
        text += chr(low)
    return text


def _count(low: int, high: int | None) -> str:
    match low, high:
        case 0, None:
            return "*"
        case 1, None:
            return "+"
        case 0, 1:
            return "?"
    return f"{{{low},{'' if high is None else high}}}"
