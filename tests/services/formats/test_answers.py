"""What raw answers turn out to be: leniency, reasoning, limits, and text that is no call."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.schemas.output import Content
from server.services.formats.base import Tool
from server.services.formats.families import FAMILIES, HERMES, LLAMA, Family
from server.services.formats.harmony import HarmonyParser
from server.services.formats.json_text import JsonScanner
from server.services.formats.parser import AnswerParser
from server.services.formats.syntax import Call, Syntax
from server.services.formats.thinking import FINAL_RESPONSE, TAGS, Tags, Thinking

from .told import CLOCK, WEATHER, read, told, valid

TOOLS = {tool.name: tool for tool in (WEATHER, CLOCK)}
PARIS = [("get_weather", {"city": "Paris"})]
THINKS = Thinking(expected=True)
BY_NAME = {family.name: family for family in FAMILIES}


def parser(syntax: Syntax = HERMES, thinking: Thinking = THINKS, **more: Any) -> AnswerParser:
    more.setdefault("lenient", True)
    return AnswerParser(syntax, thinking, more.pop("tools", TOOLS), **more)


def answer(text: str, reason: str = "stop", **more: Any) -> dict[str, Any]:
    """What a client makes of it, whichever way it is cut."""
    ways: list[list[str]] = [[text], list(text)]
    rng = random.Random(text)
    for _ in range(3):
        places = sorted(rng.randrange(len(text) + 1) for _ in range(4))
        ways.append([text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)])
    found = [told(read(parser(**more), way, reason)) for way in ways]
    assert all(one == found[0] for one in found)
    calls = found[0]["calls"]
    return {**found[0], "calls": valid(calls) if reason == "stop" else calls}


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "get_weather", "arguments": {"city": "Paris"}}',
        ' {"name":"get_weather","parameters":{"city":"Paris"}}\n',
        '{"arguments": {"city": "Paris"}, "name": "get_weather"}',
        '{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}',
        '{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}',
        '{"function": {"name": "get_weather", "parameters": {"city": "Paris"}}}',
        '{"function": "get_weather", "arguments": {"city": "Paris"}}',
        '{"tool_name": "get_weather", "args": {"city": "Paris"}}',
        '[{"name": "get_weather", "arguments": {"city": "Paris"}}]',
        '```json\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n```',
        '```\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n```\n',
        '```json\n[\n  {"name": "get_weather", "arguments": {"city": "Paris"}}\n]\n```',
        '```json\n{"name": "get_weather", "arguments": {"city": "Paris"}}',
        '<tools>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tools>',
        '<function_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</function_call>',
        '<tool_call>\n{"arguments": {"city": "Paris"}, "name": "get_weather"}\n</tool_call>',
        '<tool_call>{"name":"get_weather","arguments":{"city":"Paris"}}',
        '{"name": "get_weather", "arguments": {"city": "Paris"}',
        '[{"name": "get_weather", "arguments": {"city": "Paris"}',
        'get_weather(city="Paris")',
        "get_weather(city='Paris')",
        "[get_weather(city='Paris')]",
        '```python\nget_weather(\n  city = "Paris",\n)\n```',
    ],
)
def test_an_answer_that_is_exactly_a_call_is_one(text: str) -> None:
    assert answer(text) == {"reasoning": "", "content": "", "calls": PARIS}
    thought = answer("<think>hm</think>\n\n" + text)
    assert thought == {"reasoning": "hm", "content": "", "calls": PARIS}
    if not text.startswith("<tool_call>{"):
        strict = answer(text, lenient=False)
        assert (strict["content"], strict["calls"]) == (text, [])


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "get_time"}]',
        '{"name": "get_weather", "arguments": {"city": "Paris"}}\n{"name": "get_time"}',
        '```json\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n```\n'
        '```json\n{"name": "get_time", "arguments": {}}\n```',
        "get_weather(city='Paris'), get_time()",
        "[get_weather(city='Paris'),\n get_time()]",
    ],
)
def test_a_list_of_calls_is_several_or_the_first(text: str) -> None:
    assert answer(text)["calls"] == [*PARIS, ("get_time", {})]
    assert answer(text, parallel=False)["calls"] == PARIS


@pytest.mark.parametrize(
    "text",
    [
        "Hello!",
        "",
        "\n",
        '{"name": "Bob"}',
        '{"name": "get_weather", "arguments": {"city": 5}}',
        '{"name": "get_weather", "arguments": {"town": "Paris"}}',
        '{"name": "get_weather", "arguments": {}}',
        '{"name": "get_weather", "arguments": {"city": "Paris"}, "why": "asked"}',
        '{"name": "unknown", "arguments": {}}',
        '{"city": "Paris"}',
        '{"name": "get_weather", "arguments": {"city": "Paris"}} is what I would call.',
        'I call {"name": "get_weather", "arguments": {"city": "Paris"}}',
        '```json\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n```\nThat was it.',
        "get_weather(city=Paris)",
        "get_weather('Paris')",
        "get_weather(city='Paris') gives",
        "get_weather is a function",
        "unknown(city='Paris')",
        "[1, 2, 3]",
        "[]",
        "```python\nprint('hi')\n```",
        "<b>bold</b>",
        "<tool_call>",
        "<tool_call>\n{}\n</tool_call>",
        '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": {city: Paris}}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": [1]}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": "x"}\n</tool_call>',
        "a <tool_call> b </tool_call> c",
        '{"name": "get_weather", "arguments": {"city": "Paris"',
        '{"name": "get_time"',
        '{"name": "get_weather", "arguments": {"city": "Paris"}, ',
        '{"name": "get_weather", "arguments": {"city": 1e999}}',
        "{" * 300,
        "[" * 300,
    ],
)
def test_everything_else_stays_as_it_is(text: str) -> None:
    assert answer(text) == {"reasoning": "", "content": text, "calls": []}
    parts = read(parser(), text)
    for part in parts:
        assert isinstance(part, Content)
        assert text[part.start : part.start + len(part.text)] == part.text


@given(st.text(alphabet="<>{}[]()`\"'\\/:, \n=tool_callnamegeti1", max_size=60))
@example('{"name": "get_time", "arguments": {}}{')
@example("<tool_call><tool_call>")
def test_no_text_is_lost_or_breaks_the_parser(text: str) -> None:
    found = told(read(parser(), text))
    if not found["calls"] and not found["reasoning"]:
        thought = "<think>" in text or "</think>" in text
        assert thought or found["content"] == text
    valid(found["calls"])


def test_plain_text_is_said_at_once() -> None:
    one = parser()
    assert [part.text for part in one.push("Hello")] == ["Hello"]  # type: ignore[union-attr]
    assert [part.text for part in one.push(" <")] == []  # type: ignore[union-attr]
    assert [part.text for part in one.push("b")] == [" <b"]  # type: ignore[union-attr]
    plain = parser(tools={})
    assert [part.text for part in plain.push("{")] == ["{"]  # type: ignore[union-attr]
    assert [part.text for part in plain.push(" \n")] == [" \n"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"person": 1', '{"person": 1'),
        ('{"name": "Bo', '{"name": "Bo'),
        ('{"name": "get_weather", "arguments": {"city": "Paris"', ""),
        ("```json\n{", ""),
        ("```c", ""),
        ("```c\nint", "```c\nint"),
        ("get_wea", ""),
        ("get_wet", "get_wet"),
        ("get_time(", ""),
        ("[get_", ""),
        ('{"name": "get_weather", "arguments": {"city": 5}}', None),
    ],
)
def test_text_is_held_only_while_it_may_become_a_call(text: str, said: str | None) -> None:
    one = parser()
    parts = [part for letter in text for part in one.push(letter)]
    assert "".join(part.text for part in parts) == (text if said is None else said)  # type: ignore[union-attr]


def test_arguments_come_in_pieces_and_names_whole() -> None:
    one = parser()
    assert one.push('<tool_call>\n{"name": "get_wea') == []
    assert one.push('ther", "arguments": ') == []
    start, first = one.push('{"ci')
    assert start.name == "get_weather"  # type: ignore[union-attr]
    assert first.text == '{"ci'  # type: ignore[union-attr]
    assert [part.text for part in one.push('ty": "Par')] == ['ty": "Par']  # type: ignore[union-attr]
    assert one.complete_calls == 0
    assert [part.text for part in one.push('is"}')] == ['is"}']  # type: ignore[union-attr]
    assert one.complete_calls == 1
    assert one.push("}\n</tool_call>") == []
    assert one.finish("stop") == []


@pytest.mark.parametrize("tags", [*TAGS, FINAL_RESPONSE], ids=lambda tags: tags.close)
def test_reasoning_is_taken_out(tags: Tags) -> None:
    opened, open_itself = Thinking(tags, opened=True), Thinking(tags, expected=True)
    spoken = {"reasoning": "so\n\nthen", "content": "Hello\n", "calls": []}
    said = f"\nso\n\nthen\n{tags.close}\n\nHello\n"
    assert answer(said, thinking=opened) == spoken
    assert answer(tags.open + said, thinking=open_itself) == spoken
    assert answer("\n" + tags.open + said, thinking=open_itself, tools={}) == spoken
    unclosed = answer("so\n\nthen", "length", thinking=opened)
    assert unclosed == {"reasoning": "so\n\nthen", "content": "", "calls": []}
    empty = answer(f"\n\n{tags.close}\n\nHello\n", thinking=opened)
    assert empty == {**spoken, "reasoning": ""}


def test_calls_in_the_reasoning_are_no_calls() -> None:
    call = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
    assert answer(f"<think>{call}</think>\nNo.") == {
        "reasoning": call,
        "content": "No.",
        "calls": [],
    }
    both = answer(f"<think>{call}</think>\n{call}")
    assert (both["reasoning"], both["calls"]) == (call, [("get_time", {})])


def test_tags_later_in_an_answer_are_text() -> None:
    assert answer("Write <think> and </think>.")["content"] == "Write <think> and </think>."


def test_without_tools_a_call_is_text() -> None:
    for text in ('<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>', "get_time()"):
        assert answer(text, tools={})["content"] == text


def test_text_before_a_call_is_said_and_after_it_is_not() -> None:
    call = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
    found = answer(f"Let me see.\n\n{call}\nThat was it.")
    assert found == {"reasoning": "", "content": "Let me see.", "calls": [("get_time", {})]}
    assert answer(f"\n{call}")["content"] == ""


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_limit_leaves_no_half_of_a_call(family: Family) -> None:
    text = family.syntax.write([Call("get_weather", {"city": "Paris", "days": 12})])
    for end in range(len(text)):
        one = parser(family.syntax, Thinking(), forced=True, lenient=False)
        found = told(read(one, [text[:end]], "length"))
        assert found["content"] == ""
        assert len(found["calls"]) <= 1
        if one.complete_calls:
            assert valid(found["calls"]) == [("get_weather", {"city": "Paris", "days": 12})]


@pytest.mark.parametrize(
    "head",
    [
        "<|channel|>commentary to=functions.get_weather <|constrain|>json",
        " to=functions.get_weather<|channel|>commentary",
    ],
)
def test_a_limit_leaves_no_half_of_a_call_of_gpt_oss(head: str) -> None:
    arguments = '{"city": "Paris", "days": 12}'
    text = f"{head}<|message|>{arguments}"
    for end in range(len(text) + 1):
        one = HarmonyParser(TOOLS)
        found = told(read(one, [text[:end]], "length"))
        assert (found["content"], one.complete_calls) == ("", int(end == len(text)))
        assert not one.complete_calls or valid(found["calls"]) == [
            ("get_weather", {"city": "Paris", "days": 12})
        ]


def test_a_limit_in_a_bare_call_leaves_text() -> None:
    text = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
    for end in range(1, len(text)):
        assert answer(text[:end], "length")["content"] == text[:end]


def test_llama_3_calls_with_and_without_its_tag() -> None:
    call = '{"name": "get_weather", "parameters": {"city": "Paris"}}'
    for text in (call, "<|python_tag|>" + call, "\n" + call):
        assert answer(text, syntax=LLAMA, lenient=False)["calls"] == PARIS
    assert answer("Paris is in France.", syntax=LLAMA)["content"] == "Paris is in France."


def test_python_literals_become_json() -> None:
    tool = Tool("f", {"type": "object", "additionalProperties": True})
    text = (
        r"<|tool_call_start|>[f(a='it\'s', b=[1, -2.5, +3], c={'k': None, \"j\": True}, d=1_000, "
        r"e='\n\x41\u00e9', g=(1, 2), h=false, i='a)b]', j='\ud83e')]<|tool_call_end|>"
    ).replace('\\"', '"')
    found = told(read(parser(BY_NAME["lfm2"].syntax, Thinking(), tools={"f": tool}), text))
    (arguments,) = [json.loads(written) for _, written in found["calls"]]
    assert arguments == {
        "a": "it's",
        "b": [1, -2.5, 3],
        "c": {"k": None, "j": True},
        "d": 1000,
        "e": "\nAé",
        "g": [1, 2],
        "h": False,
        "i": "a)b]",
        "j": "\ud83e",
    }
    found["calls"][0][1].encode()


def test_values_between_tags_are_what_their_parameters_say() -> None:
    properties = {
        "text": {"type": "string"},
        "number": {"type": "number"},
        "many": {"type": "array", "items": {"type": "integer"}},
        "perhaps": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "on": {"type": "boolean"},
    }
    tool = Tool("f", {"type": "object", "properties": properties})
    values = {"text": "12", "number": "1.50", "many": "[1, 2]", "perhaps": "null", "on": "True"}
    given = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in values.items())
    text = f"<tool_call>\n<function=f>\n{given}</function>\n</tool_call>"
    found = told(read(parser(BY_NAME["qwen3-coder"].syntax, tools={"f": tool}), text))
    assert found["calls"][0][1] == (
        '{"text": "12", "number": 1.50, "many": [1, 2], "perhaps": null, "on": true}'
    )


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=12,
    ),
    st.booleans(),
)
def test_the_scanner_ends_where_json_ends(value: Any, indented: bool) -> None:
    try:
        text = json.dumps(value, allow_nan=False, indent=2 if indented else None)
    except ValueError:
        return
    for pieces in ([text + " rest"], list(text + " rest")):
        scanner, read_so_far = JsonScanner(), ""
        for piece in pieces:
            read_so_far += piece[: scanner.scan(piece, 0)]
            if scanner.done:
                break
        assert scanner.done and not scanner.failed
        assert json.loads(read_so_far) == value


@given(st.text(alphabet='{}[]",:\\u0019.eE+-truefalsn \n', max_size=24))
def test_the_scanner_agrees_with_python(text: str) -> None:
    scanner = JsonScanner()
    at = scanner.scan(text + " ", 0)
    try:
        json.loads(text, parse_constant=lambda _: 1 / 0)
        valid_json = True
    except (ValueError, ZeroDivisionError):
        valid_json = False
    assert (scanner.done and not text[at:].strip()) == valid_json


def test_long_answers_take_linear_time() -> None:
    """Half a megabyte, a few letters at a time, through every reader that holds text back."""
    long = "x" * 200_000
    call = f'{{"name": "get_weather", "arguments": {{"city": "{long}"}}}}'
    for text in (call, f"<tool_call>\n{call}\n</tool_call>", f"get_weather(city='{long}')", long):
        found = told(read(parser(), [text[i : i + 4] for i in range(0, len(text), 4)]))
        assert len(found["content"]) + sum(len(a) for _, a in found["calls"]) >= len(long)
