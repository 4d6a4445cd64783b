"""instructor in its ways to get a pydantic model out of an answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import instructor
import pytest
from instructor import Mode
from instructor.core.exceptions import IncompleteOutputException
from openai import OpenAI
from pydantic import BaseModel, field_validator

from tests.clients.asks import BASE, MIXED, TOO_LONG, TRIP, TRIP_TEXT, Leg, Trip, call

TRIP_CALL = call("Trip", TRIP.model_dump(mode="json"))


def _client(mode: Mode) -> Any:
    client = OpenAI(base_url=BASE, api_key="none", max_retries=0, timeout=30)
    return instructor.from_openai(client, mode=mode)


def _ask(said: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": said}]
    return {"model": "echo", "messages": messages, "temperature": 0, "max_retries": 0, **more}


ways = pytest.mark.parametrize(
    ("mode", "said"),
    [(Mode.TOOLS, TRIP_CALL), (Mode.JSON, TRIP_TEXT), (Mode.JSON_SCHEMA, TRIP_TEXT)],
    ids=["tools", "json", "json_schema"],
)


def test_chat() -> None:
    answer = _client(Mode.TOOLS).create(response_model=None, **_ask(MIXED))
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (MIXED, "stop")


def test_stream() -> None:
    chunks = _client(Mode.TOOLS).create(response_model=None, **_ask(MIXED, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == MIXED


@ways
def test_structured_output(mode: Mode, said: str) -> None:
    found, answer = _client(mode).create_with_completion(response_model=Trip, **_ask(said))
    assert found.model_dump() == TRIP.model_dump()
    assert answer.usage.total_tokens > 0


@pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.JSON_SCHEMA])
def test_structured_output_whatever_the_model_says(mode: Mode) -> None:
    assert isinstance(_client(mode).create(response_model=Trip, **_ask("No.")), Trip)


@ways
def test_structured_output_as_it_comes(mode: Mode, said: str) -> None:
    said = said.replace('"Trip"', '"PartialTrip"')
    asked = _ask(said, strict=False)  # strictly a `km` is no Unit
    found = list(_client(mode).create_partial(response_model=Trip, **asked))
    assert found[-1].model_dump() == TRIP.model_dump()
    assert len({partial.name for partial in found}) > 1


def test_a_list_as_it_comes() -> None:
    legs = [Leg(to="Rome", distance=1.5, unit="km"), Leg(to="Köln", distance=3, unit="mile")]
    tasks = {"tasks": [leg.model_dump(mode="json") for leg in legs]}
    asked = _ask(call("IterableLeg", tasks))
    assert list(_client(Mode.TOOLS).create_iterable(response_model=Leg, **asked)) == legs


def test_several_calls() -> None:
    class weather(BaseModel):
        city: str

    class clock(BaseModel):
        zone: str

    said = call("weather", {"city": "Köln"}) + "\n" + call("clock", {"zone": "CET"})
    found = _client(Mode.PARALLEL_TOOLS).create(
        response_model=Iterable[weather | clock], **_ask(said)
    )
    assert list(found) == [weather(city="Köln"), clock(zone="CET")]


def test_a_tool_loop() -> None:
    """Its loop: the call that did not please it goes back with what was wrong as the result."""
    refused = []

    class Town(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def _another(cls, name: str) -> str:
            if name == "Rome":
                refused.append(name)
                raise ValueError("another one")
            return name

    asked = _ask(call("Town", {"name": "Rome"}), max_retries=2)
    found, answer = _client(Mode.TOOLS).create_with_completion(response_model=Town, **asked)
    assert refused == ["Rome"] and found.name != "Rome"
    assert answer.usage.completion_tokens > 0


def test_what_is_cut_off() -> None:
    with pytest.raises(IncompleteOutputException):
        _client(Mode.TOOLS).create(response_model=Trip, **_ask(TRIP_CALL, max_tokens=5))


def test_a_prompt_that_is_too_long() -> None:
    with pytest.raises(Exception, match="maximum context length is 4096 tokens"):
        _client(Mode.TOOLS).create(response_model=Trip, **_ask(TOO_LONG))
