"""Answers of real small models in a JSON Schema."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.grammars.models import model as random_model

from .served import Served
from .tool_tasks import DESK, FIRST

pytestmark = pytest.mark.model

AT_ONCE = 4


def _size(seed: int) -> int:
    return len(json.dumps(random_model(seed).model_json_schema()))


SEEDS = sorted(range(60), key=_size)[:20]
"""The smallest, which a small model finishes."""


class Guest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)


class Event(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str = Field(max_length=30)
    kind: Literal["talk", "meal", "walk"]
    guests: list[Guest] = Field(max_length=2)
    place: str | None = Field(max_length=20)


PLAN = "Plan a dinner for Ann (31) and Bob (40)."
EVENT_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "event", "schema": Event.model_json_schema(), "strict": True},
}


@pytest.mark.parametrize("question", [PLAN, "Hello!", "Say nothing but the word banana."])
def test_an_answer_in_a_schema_validates(served: Served, question: str) -> None:
    whole, stream = served.both(question, response_format=EVENT_FORMAT)
    assert whole["finish_reason"] == "stop"
    Event.model_validate_json(whole["message"]["content"])
    assert stream["message"]["content"] == whole["message"]["content"]


def test_the_sdk_parses_an_answer(served: Served) -> None:
    answer = served.client.chat.completions.parse(
        model=served.model,
        messages=[{"role": "user", "content": PLAN}],
        response_format=Event,
        temperature=0,
        max_tokens=200,
    )
    assert isinstance(answer.choices[0].message.parsed, Event)


def test_answers_in_any_schema_validate_or_are_cut(served: Served) -> None:
    """Greedy and at random, and four at once: the models of the schema suite, one a seed."""

    def ask(seed: int) -> str:
        made = random_model(seed)
        schema = made.model_json_schema()
        named = {"name": "made", "schema": schema}
        sampling = {"temperature": seed % 2, "seed": seed, "max_tokens": 64}
        answer = served.ask(
            "Fill this in with short values.",
            **{"response_format": {"type": "json_schema", "json_schema": named}, **sampling},
        )
        reason: str = answer["finish_reason"]
        if reason == "stop":
            text = answer["message"]["content"]
            made.model_validate_json(text)
            jsonschema.Draft202012Validator(schema).validate(json.loads(text))
        return reason

    with ThreadPoolExecutor(AT_ONCE) as pool:
        reasons = list(pool.map(ask, SEEDS))
    assert set(reasons) <= {"stop", "length"}
    assert reasons.count("stop") >= len(SEEDS) // 2, reasons


@pytest.mark.parametrize("question", [FIRST[0].question, FIRST[12].question, PLAN])
def test_with_a_schema_and_tools_an_answer_is_a_call_or_validates(
    served: Served, question: str
) -> None:
    answer = served.ask(question, tools=DESK, tool_choice="auto", response_format=EVENT_FORMAT)
    if answer["finish_reason"] == "tool_calls":
        assert answer["message"]["tool_calls"] and not answer["message"]["content"]
    else:
        assert answer["finish_reason"] == "stop"
        Event.model_validate_json(answer["message"]["content"])
