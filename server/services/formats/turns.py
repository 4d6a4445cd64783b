"""A conversation in the form that one template takes, nothing of it lost."""

from __future__ import annotations

import contextlib
import hashlib
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .base import Tool, Turn
from .json_text import dumps, loads
from .syntax import Call, Syntax
from .traits import Traits, as_parts

_LETTERS = string.digits + string.ascii_letters
_ABOUT_TOOLS = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

To call a function, answer with its name and arguments in this form, and with nothing else:
{example}"""
_RESULT = "<tool_response>\n{}\n</tool_response>"


def plain(turn: Turn) -> dict[str, Any]:
    """The turn with its content as one string, or None; text parts are lines."""
    content = turn.get("content")
    if isinstance(content, list | tuple):
        content = "\n".join(_text(part) for part in content)
    role = "tool" if turn["role"] == "function" else turn["role"]
    return {**turn, "role": role, "content": content}


def _text(part: Any) -> str:
    return str(part.get("text") or part.get("refusal") or "") if isinstance(part, Mapping) else ""


def shown_tools(tools: Sequence[Tool], *, described: bool) -> list[dict[str, Any]]:
    """Tools as templates list them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": _described(tool.parameters) if described else tool.parameters,
            },
        }
        for tool in tools
    ]


def _described(parameters: Mapping[str, Any]) -> dict[str, Any]:
    declared = parameters.get("properties")
    if not isinstance(declared, Mapping):
        return dict(parameters)
    members = {
        name: {"description": "", **member} if isinstance(member, Mapping) else member
        for name, member in declared.items()
    }
    return {**parameters, "properties": members}


class Adapter:
    """Turns as the template takes them. Their user text is hidden already."""

    def __init__(self, traits: Traits, syntax: Syntax) -> None:
        self._traits = traits
        self._syntax = syntax

    def adapt(self, turns: Sequence[Turn], tools: Sequence[Any]) -> list[Turn]:
        """`tools` are to be described in words, since the template has no place for them."""
        traits = self._traits
        adapted = self._with_tools_in_words(list(turns), tools) if tools else list(turns)
        adapted = list(self._with_calls(adapted))
        if not traits.results:
            adapted = list(_results_of_users(adapted))
        if not traits.system:
            adapted = _without_system(adapted)
        return [as_parts(turn) for turn in adapted] if traits.parts else adapted

    def _with_tools_in_words(self, turns: list[Turn], tools: Sequence[Any]) -> list[Turn]:
        example = self._syntax.write([Call("<function-name>", {"<argument>": "<value>"})])
        listed = "\n".join(dumps(tool) for tool in tools)
        words = _ABOUT_TOOLS.format(tools=listed, example=example)
        if turns and turns[0]["role"] in ("system", "developer"):
            head = turns[0]
            said = f"{head['content']}\n\n{words}" if head["content"] else words
            return [_changed(head, content=said), *turns[1:]]
        return [{"role": "system", "content": words}, *turns]

    def _with_calls(self, turns: Sequence[Turn]) -> Iterator[Turn]:
        for turn in turns if self._traits.parallel else _one_by_one(turns):
            calls = turn.get("tool_calls") if turn["role"] == "assistant" else None
            if turn["role"] == "tool":
                yield self._result(turn)
            elif not calls:
                yield self._without_calls(turn)
            elif self._traits.calls:
                yield self._called(turn, calls)
            else:
                yield self._written(turn, calls)

    def _without_calls(self, turn: Turn) -> Turn:
        kept = {key: value for key, value in turn.items() if key != "tool_calls"}
        return self._reasoned({**kept, "content": turn["content"] or ""})

    def _called(self, turn: Turn, calls: Sequence[Mapping[str, Any]]) -> Turn:
        content = turn["content"] or (None if self._traits.null_content else "")
        taken = [self._taken(call) for call in calls]
        return self._reasoned({**turn, "content": content, "tool_calls": taken})

    def _taken(self, call: Mapping[str, Any]) -> dict[str, Any]:
        function = call["function"]
        arguments = function["arguments"]
        if self._traits.arguments_as_text and not isinstance(arguments, str):
            arguments = dumps(arguments)
        function = _changed(function, arguments=arguments)
        return _changed(call, function=function, id=self._id(call.get("id") or ""))

    def _id(self, id: str) -> str:
        return short_id(id) if self._traits.short_ids else id

    def _result(self, turn: Turn) -> Turn:
        id = self._id(turn.get("tool_call_id") or "")
        return _changed(turn, content=turn["content"] or "", tool_call_id=id)

    def _reasoned(self, turn: Mapping[str, Any]) -> Turn:
        """With reasoning under the template's own name for it."""
        key, reasoning = self._traits.reasoning_key, turn.get("reasoning_content")
        kept = {name: value for name, value in turn.items() if name != "reasoning_content"}
        # gpt-oss takes either reasoning or content beside a call.
        if reasoning and not (key == "thinking" and turn["content"] and "tool_calls" in turn):
            kept[key] = reasoning
        return kept

    def _written(self, turn: Turn, calls: Sequence[Mapping[str, Any]]) -> Turn:
        """The calls as text, in the family's own way, for templates that leave them out."""
        text = self._syntax.write([_call(call) for call in calls])
        content = f"{turn['content']}\n{text}" if turn["content"] else text
        return self._without_calls(_changed(turn, content=content))


def _one_by_one(turns: Sequence[Turn]) -> Iterator[Turn]:
    """Every call in a turn of its own, with its result after it."""
    rest = list(turns)
    while rest:
        turn = rest.pop(0)
        calls = turn.get("tool_calls") or []
        if turn["role"] != "assistant" or len(calls) < 2:
            yield turn
            continue
        end = next((i for i, one in enumerate(rest) if one["role"] != "tool"), len(rest))
        results, rest = rest[:end], rest[end:]
        for i, call in enumerate(calls):
            first = turn if i == 0 else _changed(turn, content="", reasoning_content="")
            yield _changed(first, tool_calls=[call])
            own = [one for one in results if one.get("tool_call_id") == call.get("id")]
            yield from own
            results = [one for one in results if one not in own]
        yield from results


def _call(call: Mapping[str, Any]) -> Call:
    function = call["function"]
    arguments = function["arguments"]
    if not isinstance(arguments, Mapping):
        arguments = {"input": arguments} if arguments else {}
    return Call(function["name"], arguments, str(call.get("id") or ""))


def with_objects(turn: Mapping[str, Any]) -> dict[str, Any]:
    """The turn with the arguments of its calls as objects, as far as they are JSON."""
    calls = turn.get("tool_calls")
    if not isinstance(calls, list | tuple):
        return dict(turn)
    return {**turn, "tool_calls": [_with_object(call) for call in calls]}


def _with_object(call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        function = {}
    arguments = function.get("arguments")
    if arguments is None or arguments == "":
        arguments = {}
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):
            read = loads(arguments)
            arguments = read if isinstance(read, Mapping) else arguments
    name = str(function.get("name") or "")
    return {**call, "type": "function", "function": {"name": name, "arguments": arguments}}


def short_id(id: str) -> str:
    """Nine letters and digits, always the same for one id."""
    if len(id) == 9 and id.isascii() and id.isalnum():
        return id
    number = int.from_bytes(hashlib.sha256(id.encode("utf-8", "replace")).digest()[:8])
    return "".join(_LETTERS[number // len(_LETTERS) ** i % len(_LETTERS)] for i in range(9))


def _changed(turn: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {**turn, **changes}


def _results_of_users(turns: Sequence[Turn]) -> Iterator[Turn]:
    """Results as what the user says, one turn for those in a row."""
    waiting: list[str] = []
    for turn in turns:
        if turn["role"] == "tool":
            waiting.append(_RESULT.format(turn["content"]))
            continue
        if waiting and turn["role"] == "user":
            waiting.append(turn["content"] or "")
            yield _changed(turn, content="\n".join(waiting))
        else:
            if waiting:
                yield {"role": "user", "content": "\n".join(waiting)}
            yield turn
        waiting = []
    if waiting:
        yield {"role": "user", "content": "\n".join(waiting)}


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    """System turns at the beginning of the next turn of the user."""
    kept: list[Turn] = []
    waiting: list[str] = []
    for turn in turns:
        if turn["role"] in ("system", "developer"):
            waiting.append(turn["content"] or "")
        elif waiting and turn["role"] == "user":
            kept.append(_changed(turn, content="\n\n".join([*waiting, turn["content"] or ""])))
            waiting = []
        else:
            kept.append(turn)
    if waiting:
        kept.append({"role": "user", "content": "\n\n".join(waiting)})
    return kept
