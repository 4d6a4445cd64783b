"""The grammar of an answer: reasoning, then text, calls of tools or what `body` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .bare import bare_rule, head_pattern
from .base import Ask, Tool
from .lark import Lark, pattern_of
from .syntax import Element, Exact, Gap, Hole, Maybe, Syntax
from .thinking import Thinking

_ID = "/[A-Za-z0-9_-]{1,40}/"
_SPACE = "/[ \\t\\r\\n]{1,4}/"


def answer_grammar(
    ask: Ask, syntax: Syntax, thinking: Thinking, special_tokens: Mapping[str, int]
) -> str:
    """Empty where everything is allowed. Raises InvalidRequest for parameters of a tool that
    cannot be enforced."""
    lark = Lark(special_tokens)
    budget = ask.reasoning_budget if thinking.opened or thinking.expected else None
    tools = callable_tools(ask)
    if not (tools or ask.body or budget is not None):
        return ""
    block = thinking.rule(lark, budget)
    visible = _visible(lark, ask, syntax, thinking, tools)
    gap = lark.terminal("GAP", _SPACE)
    free = not ask.body and ask.mode != "required"
    start = f"{block} {visible}?" if free else f"{block} {gap + '? ' if block else ''}{visible}"
    return lark.render(start.replace("GAP?", f"{gap}?").strip(), ask.body)


def callable_tools(ask: Ask) -> dict[int, Tool]:
    """The tools that may be called, by their place among those of the request."""
    if ask.mode == "none":
        return {}
    return {i: tool for i, tool in enumerate(ask.tools) if tool.name in ask.callable}


def _visible(
    lark: Lark, ask: Ask, syntax: Syntax, thinking: Thinking, tools: Mapping[int, Tool]
) -> str:
    """An expression for what follows the reasoning; free text is never empty here."""
    starts = [rf"[ \n]{{0,4}}{pattern_of(thinking.tags.open)}"]
    if not thinking.expected or lark.has_control(thinking.tags.open):
        starts = []
    if not tools:
        return "body" if ask.body else f"({lark.without(patterns=starts)})"
    arguments = {
        tool.name: syntax.arguments.rule(lark, tool, f"tools[{i}].function.parameters")
        for i, tool in tools.items()
    }
    calls = _Calls(lark, syntax, arguments, parallel=ask.parallel and syntax.parallel)
    if ask.mode == "required":
        return calls.whole()
    if ask.body:
        return f"(body | {calls.whole()})"
    return _free(lark, ask, syntax, calls, tools, starts)


def _free(
    lark: Lark,
    ask: Ask,
    syntax: Syntax,
    calls: _Calls,
    tools: Mapping[int, Tool],
    starts: Sequence[str],
) -> str:
    """Text that may turn into calls, and then stays calls."""
    options = []
    if syntax.bare or ask.lenient:
        heads = [head_pattern(tool.name) for tool in tools.values()]
        starts = [*starts, *heads]
        options.append(_bare(lark, ask, tools))
    if syntax.bare:
        text = lark.without(patterns=starts)
        return f"({' | '.join([text, *options])})"
    if lark.is_control(syntax.trigger):
        text = lark.without(patterns=starts)
        return f"({' | '.join([f'{text}? {calls.whole()}', text, *options])})"
    text = lark.without([syntax.trigger], starts)
    mark = lark.terminal(
        "MARK",
        " & ".join(
            [f"/(?s:.*){pattern_of(syntax.trigger)}/", *(f"~/(?:{s})(?s:.*)/" for s in starts)]
        ),
    )
    head = lark.rule("head", mark, "[lazy]")
    return f"({' | '.join([text, f'{head} {calls.after_trigger()}', *options])})"


def _bare(lark: Lark, ask: Ask, tools: Mapping[int, Tool]) -> str:
    from .json_text import JsonArguments

    written = JsonArguments()
    arguments = {
        tool.name: written.rule(lark, tool, f"tools[{i}].function.parameters")
        for i, tool in tools.items()
    }
    return bare_rule(lark, arguments, parallel=ask.parallel)


class _Calls:
    """Expressions for one call or several, without anything beside them but whitespace after."""

    def __init__(
        self, lark: Lark, syntax: Syntax, arguments: Mapping[str, str], *, parallel: bool
    ) -> None:
        self._lark = lark
        self._syntax = syntax
        self._arguments = arguments
        self._parallel = parallel

    def whole(self) -> str:
        return self._section([*self._syntax.begin, *self._syntax.call])

    def after_trigger(self) -> str:
        """The same, of which the trigger is there already."""
        parts = [*self._syntax.begin, *self._syntax.call]
        return self._section(parts[1:])

    def _section(self, first: Sequence[Element]) -> str:
        """Neighbouring texts are one string each: the lexer takes the longest and never goes back."""
        parts = [self._call(first)]
        if self._parallel:
            more = self._call([*self._syntax.between, *self._syntax.call])
            parts.append(f"({self._lark.rule('more', more)})*")
        parts += [self._plain(self._syntax.end), f"{self._lark.terminal('GAP', _SPACE)}?"]
        return self._lark.rule("calls", " ".join(part for part in parts if part))

    def _call(self, parts: Sequence[Element]) -> str:
        """What stands before the name is common to all tools."""
        name = parts.index(Hole("name"))
        tools = (
            self._lark.rule("tool", self._tool(parts[name + 1 :], tool, arguments))
            for tool, arguments in self._arguments.items()
        )
        return f"{self._plain(parts[:name])} ({' | '.join(tools)})".strip()

    def _tool(self, parts: Sequence[Element], name: str, arguments: str) -> str:
        at = parts.index(Hole("args"))
        before = self._plain([Exact(name), *parts[:at]])
        return " ".join(
            part for part in (before, arguments, self._plain(parts[at + 1 :])) if part
        )

    def _plain(self, parts: Sequence[Element]) -> str:
        """Text with the whitespace that the family writes, as few strings as can be."""
        said: list[str] = []
        text = ""
        for part in parts:
            if isinstance(part, Exact | Gap):
                text += part.text
                continue
            said.append(self._lark.text(text))
            text = ""
            said.append(f"({self._plain(part.parts)})?" if isinstance(part, Maybe) else _ID)
        said.append(self._lark.text(text))
        return " ".join(part for part in said if part)
