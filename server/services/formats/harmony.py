"""gpt-oss: an answer is messages on channels, each with a header of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from server.core.types import FinishReason
from server.schemas.common import new_id
from server.schemas.output import CallArguments, CallStart, Content, Part, Reasoning

from .bare import BareCalls, bare_rule, head_pattern
from .base import Ask, Tool
from .grammar import callable_tools
from .json_text import JsonArguments
from .lark import Lark
from .source import Reading, Source, beginning_of

CHANNEL, MESSAGE, START, END = "<|channel|>", "<|message|>", "<|start|>", "<|end|>"
CALL, RETURN, CONSTRAIN = "<|call|>", "<|return|>", "<|constrain|>"
SPELLINGS = (CHANNEL, MESSAGE, START, END, CALL, RETURN, CONSTRAIN)
ENDS = (CALL, RETURN)
MARKS = (CHANNEL, MESSAGE, "analysis", "commentary")
NEXT = f"{START}assistant"

HIDDEN = (
    (f"{CHANNEL}analysis", END),
    (f"{CHANNEL}commentary to=", ""),
    (" to=functions.", ""),
    (CHANNEL, MESSAGE),
    (START, "assistant"),
)

_RECIPIENT = re.compile(r"to=functions\.([\w.-]+)")
_CHANNEL = re.compile(re.escape(CHANNEL) + r"\s*(\w+)")


def harmony_grammar(ask: Ask, special_tokens: Mapping[str, int]) -> str:
    """Empty where everything is allowed. Raises InvalidRequest as `answer_grammar` does."""
    tools = callable_tools(ask)
    thinks = ask.prefill or (ask.thinking is not False and ask.reasoning_budget != 0)
    if not (tools or ask.body or ask.reasoning_budget is not None) and thinks:
        return ""
    lark = Lark(special_tokens)
    following = lark.text(END + NEXT)
    arguments = {
        tool.name: JsonArguments().rule(lark, tool, f"tools[{i}].function.parameters")
        for i, tool in tools.items()
    }
    blocks, ends = "", []
    if thinks:
        options = f"[max_tokens={ask.reasoning_budget}]" if ask.reasoning_budget else ""
        thought = lark.rule("thought", "/(?s:.+)/", options) if options else lark.anything
        opened = lark.text(f"{CHANNEL}analysis{MESSAGE}")
        blocks += f"{lark.rule('analysis', f'{opened} {thought}? {following}')}* "
    if tools:
        opened = lark.text(f"{CHANNEL}commentary{MESSAGE}")
        blocks += f"{lark.rule('preamble', f'{opened} {lark.anything} {following}')}? "
        ends.append(_calls(lark, arguments))
    if ask.mode != "required":
        shown = "body" if ask.body else _free(lark, arguments, ask)
        ends.append(f"{lark.text(f'{CHANNEL}final{MESSAGE}')} {shown}")
    return lark.render(f"{blocks}({' | '.join(ends)})", ask.body)


def _free(lark: Lark, arguments: Mapping[str, str], ask: Ask) -> str:
    """Text, or bare calls where they count."""
    if not (arguments and ask.lenient):
        return f"{lark.anything}?"
    text = lark.without(patterns=map(head_pattern, arguments))
    return f"({text} | {bare_rule(lark, arguments, parallel=ask.parallel)})?"


def _calls(lark: Lark, tools: Mapping[str, str]) -> str:
    """`tools` are expressions for arguments by name."""
    kind = f'({lark.text(f" {CONSTRAIN}json")} | " json")?'
    rules = []
    for name, arguments in tools.items():
        to = f" to=functions.{name}"
        first = lark.text(f"{to}{CHANNEL}commentary")
        last = lark.text(f"{CHANNEL}commentary{to}")
        rules.append(
            lark.rule("tool", f"({first} | {last}) {kind} {lark.text(MESSAGE)} {arguments}")
        )
    return lark.rule("calls", " | ".join(rules))


class HarmonyParser:
    """`midway`: the answer goes on in the middle of a message for the user. `lenient`: one that is
    nothing but calls is these calls."""

    def __init__(
        self,
        tools: Mapping[str, Tool],
        *,
        midway: bool = False,
        lenient: bool = False,
        parallel: bool = True,
    ) -> None:
        self.complete_calls = 0
        self._tools = tools
        self._lenient = lenient
        self._parallel = parallel
        self._midway = midway
        self._source = Source()
        self._parts: list[Part] = []
        self._started = 0
        self._cut = False
        self._reading = self._messages()

    def push(self, text: str) -> list[Part]:
        self._source.feed(text)
        return self._read()

    def finish(self, reason: FinishReason) -> list[Part]:
        self._cut = reason == "length"
        self._source.ended = True
        return self._read()

    def _read(self) -> list[Part]:
        next(self._reading, None)
        said, self._parts = self._parts, []
        return said

    def _messages(self) -> Reading[None]:
        source = self._source
        if self._midway:
            yield from self._body(reasoning=False)
        while source.text or (yield from source.more()):
            if not (yield from self._starts_header()) and not self._cut_off:
                yield from self._body(reasoning=False)
                continue
            header = yield from source.until(MESSAGE)
            if header is None:
                source.at = len(source.text)
                source.forget()
                return
            source.forget()
            yield from self._message(header)

    @property
    def _cut_off(self) -> bool:
        """What there is would have become a header or a call, had it not met the limit."""
        return self._cut and self._source.exhausted

    def _starts_header(self) -> Reading[bool]:
        """Whether a header comes, which a model may also forget."""
        source = self._source
        for mark in (START, CHANNEL, " to=", "to=", "assistant" + CHANNEL, "assistant to="):
            if (yield from source.exact(mark)):
                source.at = 0
                return True
        return False

    def _message(self, header: str) -> Reading[None]:
        recipient, channel = _RECIPIENT.search(header), _CHANNEL.search(header)
        tool = self._tools.get(recipient[1]) if recipient else None
        if tool is None:
            final = bool(channel and channel[1] == "final")
            if final and self._lenient and (yield from self._bare_calls()):
                yield from self._skip()
                return
            yield from self._body(reasoning=bool(channel and channel[1] == "analysis"))
        elif (yield from self._call(tool)):
            yield from self._skip()
        elif not self._cut_off:
            self._source.at = 0
            yield from self._body(reasoning=False)

    def _call(self, tool: Tool) -> Reading[bool]:
        """Whether it is one; the limit may have cut it off."""
        before = self._started

        def say(text: str) -> None:
            if self._started == before:
                self._parts.append(CallStart(before, new_id("call_"), tool.name))
                self._started += 1
            self._parts.append(CallArguments(before, text))

        self._source.say = say
        yield from self._source.gap()
        if (yield from JsonArguments().read(self._source, tool)):
            self.complete_calls += 1
        return self._started > before

    def _bare_calls(self) -> Reading[bool]:
        """A message that is nothing but calls."""
        source = self._source
        bare, ended, mark = BareCalls(self._tools.values()), False, ""
        while not (ended or bare.failed):
            end, mark = self._end()
            bare.feed(source.text[source.at : end])
            source.at = end
            ended = bool(mark) or not (yield from source.more())
        if not mark:
            bare.feed(source.text[source.at :])
        found = bare.calls(ended=not self._cut)[: None if self._parallel else 1]
        if not found:
            source.at = 0
        for call in found:
            self._parts.append(CallStart(self._started, new_id("call_"), call.name))
            self._parts.append(CallArguments(self._started, call.arguments))
            self._started += 1
            self.complete_calls += 1
        return bool(found)

    def _body(self, *, reasoning: bool) -> Reading[None]:
        """A message's text, to its end."""
        source = self._source
        while True:
            end, mark = self._end()
            self._say(end, reasoning)
            if mark:
                source.at = 0 if mark == START else len(mark)
                source.forget()
                return
            if not (yield from source.more()):
                self._say(len(source.text), reasoning)
                return

    def _say(self, end: int, reasoning: bool) -> None:
        source = self._source
        text = source.text[:end]
        if text:
            self._parts.append(Reasoning(text) if reasoning else Content(text, source.base))
        source.at = end
        source.forget()

    def _skip(self) -> Reading[None]:
        """What follows a call in its message."""
        source = self._source
        source.forget()
        while True:
            end, mark = self._end()
            source.at = end + (0 if mark == START else len(mark))
            source.forget()
            if mark:
                return
            if not (yield from source.more()):
                source.at = len(source.text)
                source.forget()
                return

    def _end(self) -> tuple[int, str]:
        """Where a message ends and by which mark; or how far it certainly goes on."""
        text = self._source.text
        found = [(at, mark) for mark in (END, *ENDS, START) if (at := text.find(mark)) >= 0]
        return min(found, default=(beginning_of(text, SPELLINGS), ""))
