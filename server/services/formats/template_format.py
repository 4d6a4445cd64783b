"""The format of a model whose calls a `Syntax` describes: its template, a grammar and a parser."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from server.core.errors import InvalidRequest, TemplateError
from server.core.types import ALL_HIDDEN, ModelInfo
from server.services.marks import Marks
from server.services.templates import ChatTemplate

from . import harmony
from .bare import begun_pattern, start_pattern
from .base import Ask, Rendered, Turn
from .families import Family
from .grammar import answer_grammar, callable_tools, is_bound
from .harmony import HarmonyParser, harmony_grammar
from .lark import Lark
from .parser import AnswerParser
from .thinking import USUAL, Tags, Thinking, is_opened
from .traits import Traits, with_tools
from .turns import Adapter, plain, shown_tools, with_objects

_OF_PROMPT = ("messages", "tools", "xml_tools", "functions", "add_generation_prompt")
_OF_SANDBOX = ("bos_token", "eos_token", "raise_exception", "strftime_now", "range")
RESERVED = frozenset((*_OF_PROMPT, *_OF_SANDBOX))
"""Variables that a client may not set."""


class TemplateFormat:
    def __init__(
        self,
        template: ChatTemplate,
        info: ModelInfo,
        traits: Traits,
        family: Family,
        tags: Tags | None,
    ) -> None:
        self.family = family
        self.traits = traits
        self._template = template
        self.info = info
        self._adapter = Adapter(traits, family.syntax)
        self._tags = tags

    def render(self, turns: Sequence[Turn], ask: Ask) -> Rendered:
        try:
            return self._render(turns, ask)
        except RecursionError:
            raise TemplateError("The request is nested too deeply.", param="messages") from None

    def _render(self, turns: Sequence[Turn], ask: Ask) -> Rendered:
        marks = self._template.marks()
        prompt = self.prompt(turns, ask, marks)
        if ask.thinking is False and self._tags and is_opened(prompt, self._tags):
            prompt += f"\n{self._tags.close}\n\n"
        thinking = self._thinking(prompt, turns, ask)
        return self.rendered(prompt, marks, thinking, ask)

    def rendered(self, text: str, marks: Marks, thinking: Thinking, ask: Ask) -> Rendered:
        """What follows the prompt `text`, in which `marks` hide what people wrote."""
        syntax, tools = self.family.syntax, callable_tools(ask)
        prompted = bool(syntax.trigger) and text.endswith(syntax.trigger)
        parser = partial(
            AnswerParser,
            syntax,
            thinking,
            {tool.name: tool for tool in tools.values()},
            parallel=ask.parallel,
            lenient=ask.lenient and not ask.body,
            forced=ask.mode == "required",
            midway=ask.prefill,
            prompted=prompted,
            wrap=self.family.wrap,
        )
        special_tokens = self.info.special_tokens
        return Rendered(
            marks.split(text),
            parser,
            answer_grammar(ask, self.family, thinking, special_tokens, prompted=prompted),
            shown=self._shown(thinking, bool(tools)),
            hidden=self._hidden(thinking, ask),
            hidden_start=self._hidden_start(ask, prompted=prompted),
        )

    def prompt(self, turns: Sequence[Turn], ask: Ask, marks: Marks) -> str:
        """The prompt's text, in which `marks` hide what people wrote."""
        given = [marks.hide(with_objects(plain(self._template.known_role(turn)))) for turn in turns]
        end = ""
        if ask.prefill:
            given, end = _with_end(given)
        listed: Sequence[Any] = ()
        if ask.tools and ask.mode != "none":
            listed = marks.hide(shown_tools(ask.tools, described=self.traits.described))
        native = bool(self.traits.tools_as)
        given = self._adapter.adapt(given, () if native else listed)
        given, extra = with_tools(given, listed if native else (), self.traits.tools_as)
        variables = {**marks.hide(self._variables(ask)), **extra}
        text = self._template.text(given, variables)
        if not ask.prefill:
            return text
        found = text.rfind(end)
        if found < 0:
            raise TemplateError(
                "The model's chat template cannot continue the last message.", param="messages"
            )
        return text[:found]

    def _variables(self, ask: Ask) -> dict[str, Any]:
        reserved = sorted(RESERVED & ask.variables.keys())
        if reserved:
            raise InvalidRequest(
                f"'{reserved[0]}' cannot be set by chat_template_kwargs. Leave it out.",
                param="chat_template_kwargs",
            )
        variables: dict[str, Any] = {}
        if ask.thinking is not None:
            variables |= {"enable_thinking": ask.thinking, "thinking": ask.thinking}
        if ask.thinking is False or ask.reasoning_budget == 0:
            variables["thinking_budget"] = 0
        elif ask.reasoning_budget is not None:
            variables["thinking_budget"] = ask.reasoning_budget
        if ask.effort is not None:
            variables["reasoning_effort"] = ask.effort
        prompted = ask.add_generation_prompt and not ask.prefill
        return {**variables, **ask.variables, "add_generation_prompt": prompted}

    def _thinking(self, prompt: str, turns: Sequence[Turn], ask: Ask) -> Thinking:
        tags = self._tags or USUAL
        if ask.prefill:
            said = str(plain(turns[-1])["content"] or "")
            opened = said.rfind(tags.open) > said.rfind(tags.close)
            return Thinking(tags, opened=opened)
        if is_opened(prompt, tags):
            return Thinking(tags, opened=True)
        closed = prompt.rstrip().endswith(tags.close)
        expected = self._tags is not None and not closed and ask.thinking is not False
        return Thinking(tags, expected=expected, closed=closed)

    def _shown(self, thinking: Thinking, calls: bool) -> tuple[int, ...]:
        spelled = [thinking.tags.open, thinking.tags.close, *self.family.wrap]
        if calls:
            spelled += self.family.syntax.spellings
        return Lark(self.info.special_tokens).controls(spelled)

    def _hidden(self, thinking: Thinking, ask: Ask) -> tuple[tuple[str, str], ...]:
        syntax = self.family.syntax
        if is_bound(ask):
            return ALL_HIDDEN
        marked = callable_tools(ask) and not syntax.bare and not ask.prefill
        return thinking.hidden() + (((syntax.trigger, ""),) if marked else ())

    def _hidden_start(self, ask: Ask, *, prompted: bool = False) -> str:
        """Of calls that nothing marks, or that the prompt has begun."""
        names = [tool.name for tool in callable_tools(ask).values()]
        if not names or is_bound(ask) or ask.prefill:
            return ""
        starts = []
        if ask.lenient or self.family.syntax.bare:
            starts.append(start_pattern(names))
        if prompted:
            starts.append(begun_pattern(names))
        return "|".join(starts)


class HarmonyFormat(TemplateFormat):
    """gpt-oss."""

    def rendered(self, text: str, marks: Marks, thinking: Thinking, ask: Ask) -> Rendered:  # noqa: ARG002
        tools = {tool.name: tool for tool in callable_tools(ask).values()}
        lark = Lark(self.info.special_tokens)
        return Rendered(
            marks.split(text),
            partial(
                HarmonyParser,
                tools,
                midway=ask.prefill,
                lenient=ask.lenient and not ask.body,
                parallel=ask.parallel,
            ),
            harmony_grammar(ask, self.info.special_tokens),
            shown=lark.controls(harmony.SPELLINGS),
            ends=lark.controls(harmony.ENDS),
            hidden=ALL_HIDDEN if is_bound(ask) else harmony.HIDDEN,
            hidden_start=self._hidden_start(ask),
        )

    def _variables(self, ask: Ask) -> dict[str, Any]:
        """It always thinks, if little; without a word its template asks for more."""
        variables = super()._variables(ask)
        return {**variables, "reasoning_effort": "low"} if ask.thinking is False else variables


def _with_end(turns: Sequence[Mapping[str, Any]]) -> tuple[list[Any], str]:
    """The turns with a sign after the last one's content, where the prompt is to end."""
    if not turns or turns[-1]["role"] != "assistant" or turns[-1].get("tool_calls"):
        raise InvalidRequest(
            "Only a last message of the assistant without tool calls can be continued.",
            param="messages",
        )
    end = f"\ue002{secrets.token_hex(8)}\ue003"
    last = {**turns[-1], "content": (turns[-1]["content"] or "") + end}
    return [*turns[:-1], last], end
