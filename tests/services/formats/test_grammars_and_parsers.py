"""Every family: its grammar accepts what it writes, its parser reads what its grammar lets say."""

from __future__ import annotations

import random
import re
from functools import cache
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.services.formats.base import Ask, Parser, Tool
from server.services.formats.families import FAMILIES, GENERIC, Family
from server.services.formats.grammar import answer_grammar
from server.services.formats.harmony import SPELLINGS, HarmonyParser, harmony_grammar
from server.services.formats.parser import AnswerParser
from server.services.formats.syntax import Call
from server.services.formats.tagged import TaggedArguments
from server.services.formats.thinking import TAGS, Thinking

from .told import CLOCK, SECRET, WEATHER, ask, read, told, valid
from .vocabulary import Bytes

ALL = (*FAMILIES, GENERIC)
IDS = [f"{family.name}-{i}" for i, family in enumerate(ALL)]
CALLS = [Call("get_weather", {"city": "Pa'r\"is\n", "days": 3}), Call("get_time", {})]
RICH = Tool(
    "get_weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "unit": {"enum": ["C", "F"]},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
            "exact": {"type": "boolean"},
            "at": {"$ref": "#/$defs/Place"},
        },
        "required": ["city", "unit"],
        "$defs": {
            "Place": {
                "type": "object",
                "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
                "required": ["x", "y"],
            }
        },
    },
)
_CONTROL = re.compile(
    r"<[|｜][^>]+?[|｜]>|<[a-z_]+\|>|\[/?[A-Z_]{3,}\]|<(?:start|end)_\w+>|<escape>"
)


def _controls(family: Family) -> dict[str, int]:
    """The spellings that are control tokens in such models."""
    words = [w for text in (*family.syntax.spellings, *family.wrap) for w in _CONTROL.findall(text)]
    return {word: 256 + i for i, word in enumerate(dict.fromkeys(words))}


@cache
def _vocabulary(index: int, control: bool) -> Bytes:
    return Bytes(_controls(ALL[index]) if control else {})


def _grammar(family: Family, wish: Ask, thinking: Thinking, vocabulary: Bytes) -> str:
    return answer_grammar(wish, family, thinking, vocabulary.special_tokens)


def _parser(family: Family, wish: Ask, thinking: Thinking = Thinking(), **more: Any) -> Parser:  # noqa: B008
    tools = {tool.name: tool for tool in wish.tools if tool.name in wish.callable}
    return AnswerParser(
        family.syntax,
        thinking,
        tools if wish.mode != "none" else {},
        parallel=wish.parallel,
        lenient=wish.lenient,
        forced=wish.mode == "required",
        wrap=family.wrap,
        **more,
    )


def _closer(family: Family) -> str:
    """What ends a text that may hold anything."""
    arguments = family.syntax.arguments
    if isinstance(arguments, TaggedArguments):
        return arguments.closing("city")
    return ""


def _written(family: Family) -> tuple[str, list[Call]]:
    calls = CALLS if family.syntax.parallel else CALLS[:1]
    return family.syntax.write(calls), calls


THOUGHTS = [
    pytest.param(Thinking(), "", id="no-thoughts"),
    pytest.param(Thinking(opened=True), "hm</think>\n\n", id="opened"),
    pytest.param(Thinking(expected=True), "<think>\nhm\n</think>\n\n", id="expected"),
]


@pytest.mark.parametrize("control", [False, True], ids=["text", "control"])
@pytest.mark.parametrize("index", range(len(ALL)), ids=IDS)
@pytest.mark.parametrize(("thinking", "thoughts"), THOUGHTS)
def test_forced_calls(index: int, control: bool, thinking: Thinking, thoughts: str) -> None:
    family, vocabulary = ALL[index], _vocabulary(index, control)
    grammar = _grammar(family, ask("required"), thinking, vocabulary)
    written, calls = _written(family)
    assert vocabulary.accepts(grammar, thoughts + written)
    assert not vocabulary.allows(grammar, thoughts + "Hello")
    assert not vocabulary.allows(grammar, thoughts + written.replace("get_weather", "secret"))
    assert not vocabulary.accepts(grammar, thoughts)
    answer = told(read(_parser(family, ask("required"), thinking), [thoughts + written]))
    assert answer["content"] == "" and answer["reasoning"] == ("hm" if thoughts else "")
    assert valid(answer["calls"]) == [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize("control", [False, True], ids=["text", "control"])
@pytest.mark.parametrize("index", range(len(ALL)), ids=IDS)
@pytest.mark.parametrize(("thinking", "thoughts"), THOUGHTS)
def test_calls_at_will(index: int, control: bool, thinking: Thinking, thoughts: str) -> None:
    family, vocabulary = ALL[index], _vocabulary(index, control)
    grammar = _grammar(family, ask(), thinking, vocabulary)
    written, calls = _written(family)
    for text in ("Hello!\nI do. ", '{"a": 1}', "```json\n{}\n```", '{"name": "Bob"}', "é🦊"):
        assert vocabulary.accepts(grammar, thoughts + text)
        answer = told(read(_parser(family, ask(), thinking), [thoughts + text]))
        assert (answer["content"], answer["calls"]) == (text, [])
    before = "" if family.syntax.bare else "Let me see.\n"
    if control and not vocabulary.special_tokens.keys() & {family.syntax.trigger}:
        before = ""
    assert vocabulary.accepts(grammar, thoughts + before + written)
    answer = told(read(_parser(family, ask(), thinking), [thoughts + before + written]))
    assert answer["content"] == before.strip()
    assert valid(answer["calls"]) == [(call.name, call.arguments) for call in calls]
    bare = '```json\n{"name": "get_weather", "arguments": {"%s": "a"}}\n```'
    assert vocabulary.accepts(grammar, thoughts + bare % "city")
    assert not vocabulary.allows(grammar, thoughts + bare % "town")
    unclosed = '{"name": "get_weather", "arguments": {"city": "a"}'
    assert vocabulary.accepts(grammar, thoughts + unclosed)
    assert not vocabulary.accepts(grammar, thoughts + unclosed[:-1])
    twice = f"{unclosed}}},\n{unclosed}"
    assert vocabulary.accepts(grammar, thoughts + twice)
    answer = told(read(_parser(family, ask(), thinking), [thoughts + twice]))
    assert valid(answer["calls"]) == [("get_weather", {"city": "a"})] * 2


@pytest.mark.parametrize("index", range(len(ALL)), ids=IDS)
def test_one_call_where_one_is_allowed(index: int) -> None:
    family, vocabulary = ALL[index], _vocabulary(index, False)
    wish = ask("required", parallel=False)
    grammar = _grammar(family, wish, Thinking(), vocabulary)
    assert vocabulary.accepts(grammar, family.syntax.write(CALLS[:1]))
    assert not vocabulary.accepts(grammar, family.syntax.write(CALLS))
    answer = told(read(_parser(family, wish), [family.syntax.write(CALLS)]))
    assert [name for name, _ in answer["calls"]] == ["get_weather"]


@pytest.mark.parametrize("index", range(len(ALL)), ids=IDS)
@given(data=st.data())
def test_any_split_of_an_answer_reads_the_same(index: int, data: st.DataObject) -> None:
    family = ALL[index]
    written, _ = _written(family)
    before = data.draw(
        st.sampled_from(["", "Hi.\n", "<", "\n \n", "{", "<think>a < b</think>\n\n"])
    )
    after = data.draw(st.sampled_from(["", "\n", " and more", "<tool_call>"]))
    text = before + written + after
    cut = data.draw(st.integers(0, len(text)))
    text, reason = (text, "stop") if cut > len(text) // 2 else (text[: 2 * cut], "length")
    whole, wholly = _parser(family, ask()), _parser(family, ask())
    expected = told(read(whole, [text], reason))
    singly = told(read(wholly, text, reason))
    assert singly == expected
    assert wholly.complete_calls == whole.complete_calls
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    assert told(read(_parser(family, ask()), pieces, reason)) == expected


@pytest.mark.parametrize("index", range(len(ALL)), ids=IDS)
def test_what_a_forced_grammar_lets_say_is_read_as_valid_calls(index: int) -> None:
    family, rng = ALL[index], random.Random(index)
    vocabulary = _vocabulary(index, True)
    wish = Ask(
        tools=(RICH, CLOCK, SECRET),
        mode="required",
        callable=frozenset(("get_weather", "get_time")),
    )
    grammar = _grammar(family, wish, Thinking(), vocabulary)
    ended = 0
    for _ in range(12):
        said = vocabulary.walk(grammar, rng, _closer(family))
        if said is None:
            continue
        ended += 1
        parser = _parser(family, wish)
        answer = told(read(parser, said))
        assert answer["content"] == "" and answer["calls"], said
        assert parser.complete_calls == len(answer["calls"]), said
        for name, arguments in valid(answer["calls"]):
            if name == "get_weather":
                jsonschema.validate(arguments, RICH.parameters)
            else:
                assert (name, arguments) == ("get_time", {})
    assert ended >= 3


def test_gpt_oss() -> None:
    vocabulary = Bytes({spelling: 256 + i for i, spelling in enumerate(SPELLINGS)})
    thought = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
    final = "<|channel|>final<|message|>Hello!"
    call = (
        "%s to=functions.get_weather<|channel|>commentary <|constrain|>json<|message|>"
        '{"city": "Paris"}'
    )
    tools = {"get_weather": WEATHER, "get_time": CLOCK}
    for mode in ("auto", "required"):
        grammar = harmony_grammar(ask(mode), vocabulary.special_tokens)
        assert vocabulary.accepts(grammar, final) == (mode == "auto")
        assert vocabulary.accepts(grammar, call % "")
        assert vocabulary.accepts(grammar, call % thought)
        assert not vocabulary.allows(grammar, (call % "").replace("get_weather", "secret"))
        assert not vocabulary.allows(grammar, (call % "").replace('"city"', '"town"'))
    assert harmony_grammar(ask("none"), vocabulary.special_tokens) == ""
    for pieces in ([thought + final], thought + final):
        answer = told(read(HarmonyParser(tools), pieces))
        assert answer == {"reasoning": "hm", "content": "Hello!", "calls": []}
    for pieces in ([call % thought + "<|call|>"], call % thought):
        answer = told(read(HarmonyParser(tools), pieces))
        assert answer["reasoning"] == "hm"
        assert valid(answer["calls"]) == [("get_weather", {"city": "Paris"})]


@pytest.mark.parametrize("changes", [{"thinking": False}, {"reasoning_budget": 0}], ids=str)
def test_gpt_oss_does_not_think_where_it_must_not(changes: Any) -> None:
    vocabulary = Bytes({spelling: 256 + i for i, spelling in enumerate(SPELLINGS)})
    for wish in (Ask(**changes), ask(**changes), ask("required", **changes)):
        grammar = harmony_grammar(wish, vocabulary.special_tokens)
        assert not vocabulary.allows(grammar, "<|channel|>analysis")
        called = " to=functions.get_time<|channel|>commentary json<|message|>{}"
        assert vocabulary.accepts(grammar, called) == (wish.mode != "none")
        assert vocabulary.accepts(grammar, "<|channel|>final<|message|>Hi") == (
            wish.mode != "required"
        )


@pytest.mark.parametrize("way", ["{}", "```json\n{}\n```", "[{}]"])
def test_gpt_oss_may_forget_where_a_call_belongs(way: str) -> None:
    vocabulary = Bytes({spelling: 256 + i for i, spelling in enumerate(SPELLINGS)})
    tools = {"get_weather": WEATHER, "get_time": CLOCK}
    call = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
    before = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>"
    text = before + way.replace("{}", call)
    grammar = harmony_grammar(ask(), vocabulary.special_tokens)
    assert vocabulary.accepts(grammar, text)
    assert not vocabulary.allows(grammar, text.replace('"city": "Paris"', '"city": 5'))
    strict = harmony_grammar(ask(lenient=False), vocabulary.special_tokens)
    assert vocabulary.accepts(strict, text.replace('"city": "Paris"', '"city": 5'))
    for pieces in ([text], text, [text + "<|return|>"]):
        found = told(read(HarmonyParser(tools, lenient=True), pieces))
        assert (found["reasoning"], found["content"]) == ("hm", "")
        assert valid(found["calls"]) == [("get_weather", {"city": "Paris"})]
        plain = told(read(HarmonyParser(tools), pieces))
        assert (plain["content"], plain["calls"]) == (way.replace("{}", call), [])
    more = told(read(HarmonyParser(tools, lenient=True), f"{text}!"))
    assert (more["content"], more["calls"]) == (way.replace("{}", call) + "!", [])


@pytest.mark.parametrize("tags", TAGS, ids=lambda tags: tags.close)
@pytest.mark.parametrize("control", [False, True], ids=["text", "control"])
def test_a_budget_closes_the_reasoning(tags: Any, control: bool) -> None:
    words = {word: 256 + i for i, word in enumerate([tags.open, tags.close])} if control else {}
    vocabulary = Bytes(words)
    thinking = Thinking(tags, opened=True)
    grammar = _grammar(GENERIC, Ask(reasoning_budget=8), thinking, vocabulary)
    assert vocabulary.accepts(grammar, f"short{tags.close}Hello")
    assert not vocabulary.allows(grammar, "far too long a thought, of forty characters and more")
    closed = _grammar(GENERIC, Ask(reasoning_budget=0), thinking, vocabulary)
    assert vocabulary.accepts(closed, f"{tags.close}Hello")
    assert not vocabulary.allows(closed, "t")
    assert _grammar(GENERIC, Ask(), thinking, vocabulary) == ""


@pytest.mark.parametrize("index", range(len(ALL)), ids=IDS)
def test_a_body_or_calls(index: int) -> None:
    family, vocabulary = ALL[index], _vocabulary(index, True)
    body = 'body: %json {"type": "object", "properties": {"answer": {"type": "integer"}}, '
    body += '"required": ["answer"], "additionalProperties": false}\n'
    wish = ask(body=body)
    grammar = _grammar(family, wish, Thinking(), vocabulary)
    assert vocabulary.accepts(grammar, '{"answer":3}')
    assert vocabulary.accepts(grammar, family.syntax.write(CALLS[:1]))
    assert not vocabulary.allows(grammar, "Hello")
    forced = _grammar(family, ask("required", body=body), Thinking(), vocabulary)
    assert not vocabulary.accepts(forced, '{"answer":3}')
    alone = _grammar(family, Ask(body=body), Thinking(opened=True), vocabulary)
    assert vocabulary.accepts(alone, 'hm</think>\n\n{"answer":3}')
    assert not vocabulary.accepts(alone, "hm</think>\n\nHello")


def test_nothing_to_constrain_costs_nothing() -> None:
    for family in ALL:
        for wish in (Ask(), ask("none"), Ask(thinking=True, effort="high")):
            assert answer_grammar(wish, family, Thinking(expected=True), {}) == ""
