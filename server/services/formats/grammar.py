"""The grammar of an answer: reasoning, then text, calls of tools or what `body` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.services.grammars import json_schema_atom

from .bare import bare_rule, head_pattern
from .base import Ask, Tool
from .families import Family
from .json_text import JsonArguments
from .lark import Lark, pattern_of
from .syntax import Arguments, Element, Exact, Gap, Hole, Maybe, Syntax
from .thinking import SPACE, Thinking

_ID = "/[A-Za-z0-9_-]{1,40}/"


def answer_grammar(
    ask: Ask,
    family: Family,
    thinking: Thinking,
    special_tokens: Mapping[str, int],
    *,
    prompted: bool = False,
) -> str:
    """Empty where everything is allowed. `prompted`: the prompt ends in what begins a call.

    Raises InvalidRequest for parameters of a tool that cannot be enforced.
    """
    budget = ask.reasoning_budget if thinking.opened or thinking.expected else None
    if not (callable_tools(ask) or ask.body or budget is not None):
        return ""
    lark = Lark(special_tokens)
    block = thinking.rule(lark, budget)
    visible = _Visible(lark, ask, family, thinking, prompted).rule()
    return lark.render(f"{block} {visible}".strip(), ask.body)


def callable_tools(ask: Ask) -> dict[int, Tool]:
    """The tools that may be called, by their place among those of the request."""
    if ask.mode == "none":
        return {}
    return {i: tool for i, tool in enumerate(ask.tools) if tool.name in ask.callable}


def is_bound(ask: Ask) -> bool:
    """Whether a grammar says all that may be visible."""
    return bool(ask.body) or ask.mode == "required"


class _Visible:
    """What follows the reasoning."""

    def __init__(
        self, lark: Lark, ask: Ask, family: Family, thinking: Thinking, prompted: bool
    ) -> None:
        self._lark = lark
        self._ask = ask
        self._syntax = family.syntax
        self._prompted = prompted
        self._tools = callable_tools(ask)
        self._open, self._close = family.wrap
        if prompted:
            self._open = self._open.removeprefix(family.syntax.trigger)
        opens = thinking.expected and not lark.has_control(thinking.tags.open)
        self._starts = [rf"[ \n]{{0,4}}{pattern_of(thinking.tags.open)}"] if opens else []
        """Patterns of what free text does not begin with."""

    def rule(self) -> str:
        if not self._tools:
            return self._shown("body") if self._ask.body else f"{self._free_text()}?"
        if self._ask.mode == "required":
            return self._calls()
        if self._ask.body:
            calls = self._bare_json() if self._syntax.bare else self._calls()
            return f"({self._shown('body')} | {calls})"
        return self._free()

    def _calls(self) -> str:
        calls = self._expressions()
        return calls.after_trigger() if self._prompted else calls.whole()

    def _bare_json(self) -> str:
        """Calls as JSON Schemas: beside a body that is JSON too, the lexer must not choose."""
        options = []
        for i, tool in self._tools.items():
            parameters = _moved(tool.parameters, "#/properties/parameters/")
            call = {
                "type": "object",
                "properties": {"name": {"const": tool.name}, "parameters": parameters},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
            param = f"tools[{i}].function.parameters"
            options.append(json_schema_atom(call, param=param, strict=tool.strict))
        return self._lark.rule("calls", " | ".join(options))

    def _expressions(self) -> _Calls:
        arguments = self._arguments(self._syntax.arguments)
        parallel = self._ask.parallel and self._syntax.parallel
        return _Calls(self._lark, self._syntax, arguments, parallel=parallel)

    def _arguments(self, written: Arguments) -> dict[str, str]:
        return {
            tool.name: written.rule(self._lark, tool, f"tools[{i}].function.parameters")
            for i, tool in self._tools.items()
        }

    def _shown(self, text: str) -> str:
        """Text between the tags that the family may put around it."""
        lark = self._lark
        if self._prompted:
            return f"{lark.text(self._open)} {text}"
        before = f"({lark.text(self._open)})? " if self._open else ""
        after = f" ({lark.text(self._close)})?" if self._close else ""
        return before + text + after

    def _free_text(self, without: Sequence[str] = ()) -> str:
        text = self._lark.without(without, self._starts)
        wrapped = self._prompted or self._lark.has_control(self._open)
        return self._lark.rule("free", self._shown(text)) if wrapped else text

    def _free(self) -> str:
        """Text that may turn into calls, and then stays calls; or nothing."""
        lark, syntax, options = self._lark, self._syntax, []
        if syntax.bare or self._ask.lenient:
            names = [tool.name for tool in self._tools.values()]
            self._starts += map(head_pattern, names)
            arguments = self._arguments(JsonArguments())
            options.append(bare_rule(lark, arguments, parallel=self._ask.parallel))
        if syntax.bare:
            return f"({' | '.join([self._free_text(), *options])})?"
        calls = self._expressions()
        if lark.has_control(syntax.trigger):
            text = self._free_text()
            options += [f"{text}? {calls.whole()}", text]
        else:
            text = self._free_text([syntax.trigger])
            head = lark.rule("head", self._text_to_trigger(), "[lazy]")
            opened = lark.text(self._open) if self._prompted else ""
            options += [text, f"{opened} {head} {calls.after_trigger()}".strip()]
        if self._prompted:
            options.append(calls.after_trigger())
        return f"({' | '.join(options)})?"

    def _text_to_trigger(self) -> str:
        parts = [f"/(?s:.*){pattern_of(self._syntax.trigger)}/"]
        parts += [f"~/(?:{start})(?s:.*)/" for start in self._starts]
        return self._lark.terminal("MARK", " & ".join(parts))


def _moved(schema: Any, place: str) -> Any:
    """A schema that stands inside another, with references to where it is now."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved = {key: _moved(member, place) for key, member in schema.items()}
    target = schema.get("$ref")
    if isinstance(target, str) and target.startswith("#"):
        moved["$ref"] = place.rstrip("/") + target[1:]
    return moved


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
        """Neighbouring texts are one string: the lexer takes the longest and never goes back."""
        parts = [self._call(first)]
        if self._parallel:
            more = self._call([*self._syntax.between, *self._syntax.call])
            parts.append(f"({self._lark.rule('more', more)})*")
        parts += [self._plain(self._syntax.end), f"{self._lark.terminal('GAP', SPACE)}?"]
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
        return " ".join(part for part in (before, arguments, self._plain(parts[at + 1 :])) if part)

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
