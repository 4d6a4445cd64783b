"""Reads what a model says: reasoning, text and calls of tools, as they come."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from server.core.types import FinishReason
from server.schemas.common import new_id
from server.schemas.output import CallArguments, CallStart, Content, Part, Reasoning

from .bare import BareCalls
from .base import Tool
from .source import Reading, Source, beginning_of
from .syntax import Element, Exact, Gap, Hole, Maybe, Syntax
from .thinking import Thinking

_ID_LETTERS = frozenset(string.ascii_letters + string.digits + "_-.")


class AnswerParser:
    """One answer of a family whose calls `syntax` describes; no `tools`, no calls.

    `forced`: it is nothing but calls. `midway`: it goes on where a prompt left off.
    `prompted`: the prompt ends in what begins a call.
    """

    def __init__(
        self,
        syntax: Syntax,
        thinking: Thinking,
        tools: Mapping[str, Tool],
        *,
        parallel: bool = True,
        lenient: bool = False,
        forced: bool = False,
        midway: bool = False,
        prompted: bool = False,
        wrap: tuple[str, str] = ("", ""),
    ) -> None:
        self.complete_calls = 0
        self._syntax = syntax
        self._thinking = thinking
        self._tools = tools
        self._name_letters = _ID_LETTERS.union(*tools)
        self._parallel = parallel
        self._lenient = lenient
        self._forced = forced
        self._midway = midway
        self._open, self._close = wrap
        self._source = Source()
        if prompted:
            self._source.text = syntax.trigger
            self._source.base = -len(syntax.trigger)
        self._parts: list[Part] = []
        self._started = 0
        self._cut = False
        self._reading = self._answer()

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

    # What an answer is made of, in its order.

    def _answer(self) -> Reading[None]:
        if self._thinking.opened or not self._midway:
            yield from self._reasoning()
        if self._open and not (yield from self._opened_wrap()):
            self._close = ""
        if not (self._tools and not self._midway and (yield from self._only_calls())):
            yield from self._text()
        while (yield from self._source.more()):
            self._source.text = ""

    def _reasoning(self) -> Reading[None]:
        source, tags = self._source, self._thinking.tags
        if not self._thinking.opened:
            yield from source.gap()
            if not (yield from source.exact(tags.open)):
                if self._thinking.closed:
                    source.forget()
                source.at = 0
                return
        yield from source.gap()
        source.forget()
        yield from self._block(tags.close)
        yield from source.gap()
        source.forget()

    def _block(self, close: str) -> Reading[None]:
        """To the closing tag, without the whitespace before it."""
        source = self._source
        while (found := source.text.find(close)) < 0:
            self._say_reasoning(beginning_of(source.text, (close,)))
            if not (yield from source.more()):
                self._say_reasoning(len(source.text))
                source.at = len(source.text)
                source.forget()
                return
        self._say_reasoning(found)
        source.at = source.text.index(close) + len(close)

    def _say_reasoning(self, end: int) -> None:
        text = self._source.text[:end].rstrip()
        if text:
            self._parts.append(Reasoning(text))
            self._source.at = len(text)
            self._source.forget()

    def _opened_wrap(self) -> Reading[bool]:
        source = self._source
        yield from source.gap()
        found = yield from source.exact(self._open)
        if found:
            source.forget()
        source.at = 0
        return found

    def _only_calls(self) -> Reading[bool]:
        """An answer that begins with a call, or that is nothing but calls without their tags."""
        source = self._source
        yield from source.gap()
        if (yield from self._calls(self._forced)):
            return True
        source.at = 0
        return self._lenient and (yield from self._bare_calls())

    def _bare_calls(self) -> Reading[bool]:
        source = self._source
        bare = BareCalls(self._tools.values())
        while True:
            bare.feed(source.text[source.at :])
            source.at = len(source.text)
            if bare.failed or not (yield from source.more()):
                break
        found = bare.calls(ended=not self._cut)[: None if self._parallel else 1]
        if not found:
            source.at = 0
            return False
        for call in found:
            self._start(call.name)
            self._say_arguments(call.arguments)
            self.complete_calls += 1
        return True

    def _text(self) -> Reading[None]:
        """Visible text, to the first call."""
        source = self._source
        marks = tuple(mark for mark in (self._trigger, self._close) if mark)
        seen = 0
        while True:
            found = [at for mark in marks if (at := source.text.find(mark, seen)) >= 0]
            if not found:
                seen = self._say_content(beginning_of(source.text, marks, seen))
                if (yield from source.more()):
                    continue
                self._say_content(len(source.text), whole=True)
                return
            at = self._say_content(min(found))
            if self._close and source.text.startswith(self._close, at):
                self._say_content(at, whole=True)
                return
            source.at = at
            if (yield from self._calls(True)):
                return
            source.at, seen = 0, at + 1

    @property
    def _trigger(self) -> str:
        return self._syntax.trigger if self._tools and not self._syntax.bare else ""

    def _say_content(self, end: int, *, whole: bool = False) -> int:
        """Says the text before `end`; where that is now. Whitespace that may stand before a call
        waits, unless it is `whole`."""
        source = self._source
        text = source.text[:end]
        if self._tools and not whole:
            text = text.rstrip()
        if text:
            self._parts.append(Content(text, source.base))
            source.at = len(text)
            source.forget()
        return end - len(text)

    # Calls.

    def _calls(self, dropped: bool) -> Reading[bool]:
        """The calls of an answer. Of one that the limit cut off nothing is left if `dropped`."""
        before, syntax = self._started, self._syntax
        if (yield from self._match(syntax.begin)):
            while (yield from self._call()):
                if not (self._parallel and syntax.parallel):
                    break
                if not (yield from self._match(syntax.between)):
                    break
        if self._started > before:
            return True
        return dropped and self._cut and self._source.exhausted

    def _call(self) -> Reading[bool]:
        """One call; what should follow its arguments may be missing."""
        source, parts = self._source, self._syntax.call
        at = parts.index(Hole("name"))
        if not (yield from self._match(parts[:at])):
            return False
        tool = self._tools.get((yield from self._name()))
        end = parts.index(Hole("args"))
        if tool is None or not (yield from self._match(parts[at + 1 : end])):
            return False
        before = self._started
        name = tool.name

        def say(text: str) -> None:
            if self._started == before:
                self._start(name)
            self._say_arguments(text)

        source.say = say
        if not (yield from self._syntax.arguments.read(source, tool)):
            return False
        self.complete_calls += 1
        after, tail = source.at, parts[end + 1 :]
        if tail:
            yield from source.gap()
        if not (yield from self._match(tail)):
            source.at = after
        return True

    def _match(self, parts: Sequence[Element]) -> Reading[bool]:
        source = self._source
        for part in parts:
            match part:
                case Exact(text):
                    if not (yield from source.exact(text)):
                        return False
                case Gap():
                    yield from source.gap()
                case Maybe(inner):
                    start = source.at
                    if not (yield from self._match(inner)):
                        source.at = start
                case Hole():
                    yield from self._word(_ID_LETTERS)
        return True

    def _name(self) -> Reading[str]:
        return (yield from self._word(self._name_letters))

    def _word(self, letters: frozenset[str]) -> Reading[str]:
        source, start = self._source, self._source.at
        while True:
            while source.at < len(source.text):
                if source.text[source.at] not in letters:
                    return source.text[start : source.at]
                source.at += 1
            if not (yield from source.more()):
                return source.text[start:]

    def _start(self, name: str) -> None:
        self._parts.append(CallStart(self._started, new_id("call_"), name))
        self._started += 1

    def _say_arguments(self, text: str) -> None:
        self._parts.append(CallArguments(self._started - 1, text))
