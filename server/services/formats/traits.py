"""What a template does with what it is given, found out by giving it a short conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from server.core.errors import TemplateError
from server.services.templates import ChatTemplate

Turn = Mapping[str, Any]

_SYSTEM, _USER, _RESULT = "Probe-system", "Probe-user", "Probe-result"
_VALUES = ("Probe-one", "Probe-two")
_SHORT_IDS = ("abcdef001", "abcdef002")
_LONG_IDS = ("call_abcdefghijklmnopqrstuvwx", "call_abcdefghijklmnopqrstuvwy")
TOOL_NAME = "probe_tool"

_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")

ToolsAs = Literal["tools", "xml_tools", "functions", "system", ""]
_WAYS: tuple[ToolsAs, ...] = ("tools", "xml_tools", "functions", "system")


class Traits(Struct, frozen=True):
    """`tools_as`: the variable that takes tools (`system`: a field of the system turn), if any.

    `calls`: whether it writes the calls of earlier turns, with arguments as objects or as JSON
    text (`arguments_as_text`) and with no content or an empty one (`null_content`). `parallel`:
    more than one call in a turn. `results`, `system`: whether it takes such turns. `parts`: content
    must be a list of parts. `short_ids`: ids of calls must have nine letters and digits.
    `described`: every parameter needs a description. `reasoning_key`: its name for reasoning.
    """

    tools_as: ToolsAs = ""
    calls: bool = False
    arguments_as_text: bool = False
    null_content: bool = False
    parallel: bool = True
    results: bool = False
    system: bool = True
    parts: bool = False
    short_ids: bool = False
    described: bool = False
    reasoning_key: str = "reasoning_content"


def probe_arguments(place: str = _VALUES[0]) -> dict[str, Any]:
    return {"place": place, "count": 2}


def probe_call(arguments: Any, id: str) -> dict[str, Any]:
    return {
        "id": id,
        "type": "function",
        "function": {"name": TOOL_NAME, "arguments": arguments},
    }


def traits_of(template: ChatTemplate) -> Traits:
    return _Probe(template).traits()


def written_call(template: ChatTemplate, traits: Traits) -> str:
    """A conversation with one call as the template writes it; empty where it does not."""
    probe = _Probe(template)
    probe.follow(traits)
    ids = _SHORT_IDS if traits.short_ids else _LONG_IDS
    shown = probe.shown(
        traits.tools_as, traits.described, ids[:1], traits.null_content, traits.arguments_as_text
    )
    return shown or ""


class _Probe:
    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._parts = False
        self._system = True

    def follow(self, traits: Traits) -> None:
        self._parts, self._system = traits.parts, traits.system

    def traits(self) -> Traits:
        user = [{"role": "user", "content": _USER}]
        self._parts = _USER not in self._text(user) and _USER in self._text(user, parts=True)
        system = [{"role": "system", "content": _SYSTEM}, *user]
        self._system = any(
            _SYSTEM in self._text(system, with_tools([], [], way)[1]) for way in _WAYS
        )
        tools_as, described = self._tools()
        found = self._calls(tools_as, described)
        return Traits(
            tools_as=tools_as,
            described=described,
            system=self._system,
            parts=self._parts,
            reasoning_key=self._reasoning_key(),
            **found,
        )

    def _text(
        self,
        turns: Sequence[Turn],
        variables: Mapping[str, Any] | None = None,
        *,
        parts: bool | None = None,
    ) -> str:
        """What the template makes of it, nothing if it refuses."""
        parts = self._parts if parts is None else parts
        given = [as_parts(turn) if parts else turn for turn in turns]
        try:
            variables = {"add_generation_prompt": True, **(variables or {})}
            return self._template.exact_text(given, variables)
        except (TemplateError, RecursionError):
            return ""

    def _tools(self) -> tuple[ToolsAs, bool]:
        for described in (False, True):
            tools = [_tool(described)]
            for tools_as in _WAYS:
                turns: list[Turn] = [{"role": "user", "content": _USER}]
                if self._system:
                    turns.insert(0, {"role": "system", "content": _SYSTEM})
                text = self._text(*with_tools(turns, tools, tools_as))
                if TOOL_NAME in text and "Probe-about" in text:
                    return tools_as, described
        return "", False

    def _calls(self, tools_as: ToolsAs, described: bool) -> dict[str, Any]:
        """The first way in which a call's arguments come out, and come out once."""
        for ids in (_LONG_IDS, _SHORT_IDS):
            for null_content in (False, True):
                for as_text in (False, True):
                    shown = self.shown(tools_as, described, ids[:1], null_content, as_text)
                    if shown is None:
                        continue
                    both = self.shown(tools_as, described, ids, null_content, as_text)
                    return {
                        "calls": True,
                        "arguments_as_text": as_text,
                        "null_content": null_content,
                        "short_ids": ids is _SHORT_IDS,
                        "results": _RESULT in shown,
                        "parallel": both is not None and all(v in both for v in _VALUES),
                    }
        user = {"role": "user", "content": _USER}
        said = {"role": "assistant", "content": "Probe-said"}
        result = {"role": "tool", "content": _RESULT, "tool_call_id": _SHORT_IDS[0]}
        text = self._text([user, said, {**result, "name": TOOL_NAME}, said, user])
        return {"results": _RESULT in text and "Probe-said" in text}

    def shown(
        self,
        tools_as: ToolsAs,
        described: bool,
        ids: Sequence[str],
        null_content: bool,
        as_text: bool,
    ) -> str | None:
        turns: list[Turn] = [{"role": "user", "content": _USER}]
        if self._system:
            turns.insert(0, {"role": "system", "content": _SYSTEM})
        arguments: list[Any] = [probe_arguments(value) for value in _VALUES]
        if as_text:
            arguments = [_json(given) for given in arguments]
        calls = [probe_call(argument, id) for argument, id in zip(arguments, ids, strict=False)]
        content = None if null_content else ""
        turns.append({"role": "assistant", "content": content, "tool_calls": calls})
        turns += [
            {"role": "tool", "content": _RESULT, "tool_call_id": id, "name": TOOL_NAME}
            for id in ids
        ]
        turns.append({"role": "assistant", "content": "Probe-said"})
        turns.append({"role": "user", "content": _USER})
        text = self._text(*with_tools(turns, [_tool(described)], tools_as))
        # An escaped quote is a text where the template wants an object.
        wrong = '\\"place' in text or "None" in text.replace("NoneType", "")
        return text if _VALUES[0] in text and "Probe-said" in text and not wrong else None

    def _reasoning_key(self) -> str:
        source = self._template.source
        found = [
            key
            for key in _REASONING_KEYS
            if any(form in source for form in (f"message.{key}", f"'{key}'", f'"{key}"'))
        ]
        return found[0] if found else _REASONING_KEYS[0]


def as_parts(turn: Turn) -> Turn:
    content = turn["content"]
    if not isinstance(content, str):
        return turn
    return {**turn, "content": [{"type": "text", "text": content}]}


def with_tools(
    turns: Sequence[Turn], tools: Sequence[Any], tools_as: ToolsAs
) -> tuple[list[Turn], dict[str, Any]]:
    """The turns and variables by which a template gets tools."""
    if tools_as == "system" and tools:
        shown = _json([tool["function"] for tool in tools])
        if not turns or turns[0]["role"] != "system":
            turns = [{"role": "system", "content": ""}, *turns]
        return [{**turns[0], "tools": shown}, *turns[1:]], {}
    if tools_as == "functions":
        return list(turns), {"functions": _json(tools), "datetime": _today()}
    return list(turns), {tools_as: tools} if tools_as in ("tools", "xml_tools") and tools else {}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _today() -> str:
    return datetime.now().strftime("%Y-%m-%d")


def _tool(described: bool) -> dict[str, Any]:
    about = {"description": "Probe-detail"} if described else {}
    place, count = {"type": "string", **about}, {"type": "integer", **about}
    return {
        "type": "function",
        "function": {
            "name": TOOL_NAME,
            "description": "Probe-about",
            "parameters": {"type": "object", "properties": {"place": place, "count": count}},
        },
    }
