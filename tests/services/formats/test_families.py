"""What every family has in common: what is no call of an offered tool is text."""

from __future__ import annotations

from typing import Any

import pytest

from server.services.formats.families import FAMILIES, GENERIC, Family
from server.services.formats.parser import AnswerParser
from server.services.formats.syntax import Call
from server.services.formats.thinking import Thinking

from .told import CLOCK, WEATHER, read, told, valid

TOOLS = {tool.name: tool for tool in (WEATHER, CLOCK)}
ALL = (*FAMILIES, GENERIC)


def answer(family: Family, text: str, tools: Any = TOOLS) -> dict[str, Any]:
    """What a client makes of it, whole and letter by letter."""
    found = [
        told(read(AnswerParser(family.syntax, Thinking(expected=True), tools), pieces))
        for pieces in ([text], text)
    ]
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_only_whole_calls_of_offered_tools_are_calls(family: Family) -> None:
    city = family.syntax.write([Call("get_weather", {"city": "Paris"})])
    assert valid(answer(family, city)["calls"]) == [("get_weather", {"city": "Paris"})]
    thought = answer(family, f"<think>hm</think>\n{city}")
    assert (thought["reasoning"], len(thought["calls"])) == ("hm", 1)
    time = family.syntax.write([Call("get_time", {})])
    assert valid(answer(family, time)["calls"]) == [("get_time", {})]
    untouched = {"reasoning": "", "calls": []}
    assert answer(family, city, {}) == {**untouched, "content": city}
    unknown = city.replace("get_weather", "launch")
    assert answer(family, unknown) == {**untouched, "content": unknown}
    broken = city[: city.index("get_weather") + 5] + " or not, who knows"
    assert answer(family, broken) == {**untouched, "content": broken}
