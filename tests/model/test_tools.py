"""Tool calls of real small models: the right ones, valid ones, streamed and after thinking."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import httpx2
import openai
import pytest
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

from tests.api.streams import chunks_of, joined

from .conftest import serving
from .served import Served
from .tool_score import Way, ask, calls_of, choice_of, score
from .tool_tasks import DESK, FIRST, SECOND, Made, Task

pytestmark = pytest.mark.model

DRAFTED = 0.25
"""How far a score may move where a draft gave the batch another shape."""
BOUNDED: list[dict[str, Any]] = [
    *(tool for tool in DESK if tool["function"]["name"] == "set_timer"),
    {
        "type": "function",
        "function": {
            "name": "switch_light",
            "description": "Switch a light on or off.",
            "parameters": {
                "type": "object",
                "properties": {
                    "room": {"type": "string", "enum": ["kitchen", "hall", "bedroom"]},
                    "on": {"type": "boolean"},
                },
                "required": ["room", "on"],
                "additionalProperties": False,
            },
        },
    },
]
TIMER = "Set a timer for 10 minutes."
NAMES = [tool["function"]["name"] for tool in DESK]


def _calls(choice: dict[str, Any], tools: list[dict[str, Any]] = DESK) -> list[Made]:
    """The calls of an answer, each of an offered tool and with arguments that fit its schema."""
    calls, valid = calls_of(choice["message"], tools)
    assert valid or not choice["message"].get("tool_calls")
    assert len({call["id"] for call in choice["message"].get("tool_calls") or []}) == len(calls)
    return calls


@pytest.mark.parametrize(
    ("tasks", "choice", "right"),
    [
        pytest.param(FIRST, "auto", 16, id="first-auto"),
        pytest.param(FIRST, "required", 16, id="first-required"),
        pytest.param(SECOND, "auto", 14, id="second-auto"),
    ],
)
def test_a_small_model_calls_the_right_tool(
    qwen: Served, tasks: tuple[Task, ...], choice: Way, right: int
) -> None:
    """As many as the model itself can: what it gets wrong here, its unconstrained text does too."""
    answers = [ask(qwen.client, qwen.model, task, choice) for task in tasks]
    for answer in answers:
        assert answer.valid or (choice == "auto" and not answer.calls)
        assert answer.finish == ("tool_calls" if answer.calls else "stop")
    missed = [(a.task.question, a.calls, a.text) for a in answers if not a.right]
    assert score(answers).right >= right, missed


@pytest.mark.parametrize("tool", NAMES)
def test_a_named_tool_is_the_one_called(served: Served, tool: str) -> None:
    """Also where the question asks for another one, and for none. The smallest model may go on in
    an argument until the limit: then it is no half call."""
    for question in (FIRST[0].question, "Hello!"):
        answer = served.ask(question, tools=DESK, tool_choice=choice_of("named", tool))
        names = {name for name, _ in _calls(answer)}
        if "smollm2" in served.model.lower() and answer["finish_reason"] == "length":
            assert not names and not answer["message"].get("content")
            continue
        assert (names, answer["finish_reason"]) == ({tool}, "tool_calls")


@pytest.mark.parametrize("task", [*FIRST[::7], *SECOND[::7]], ids=lambda task: task.tool)
def test_a_required_call_is_valid_on_a_model_whose_template_has_no_tools(
    smollm2: Served, task: Task
) -> None:
    answer = smollm2.ask(task.question, tools=task.tools, tool_choice="required")
    assert answer["finish_reason"] == "tool_calls"
    assert _calls(answer, task.tools)


@pytest.mark.parametrize(
    ("served", "question", "choice"),
    [
        *(("qwen", question, "auto") for question in (FIRST[9].question, TIMER)),
        *(("smollm2", question, "required") for question in (FIRST[9].question, TIMER)),
        *((model, "Hi!", choice) for model in ("qwen", "smollm2") for choice in ("auto", "none")),
    ],
    indirect=["served"],
)
def test_a_stream_adds_up_to_the_whole_answer(served: Served, question: str, choice: str) -> None:
    """Calls and short texts: in a long one a draft's other rounding may decide a close race."""
    whole, stream = served.both(question, tools=DESK, tool_choice=choice, max_tokens=40)
    assert stream["reason"] == whole["finish_reason"]
    assert (stream["message"]["content"] or "") == (whole["message"]["content"] or "")
    if whole["finish_reason"] != "length":
        assert _calls(stream) == _calls(whole)


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_streamed_call_comes_as_clients_expect_it(qwen: Served, choice: str) -> None:
    """Its head once, then only arguments; in pieces where they were generated in pieces."""
    body = {
        "model": qwen.model,
        "messages": [{"role": "user", "content": FIRST[7].question}],
        "tools": DESK,
        "tool_choice": choice,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    response = httpx2.post(f"{qwen.client.base_url}chat/completions", json=body, timeout=60)
    chunks = chunks_of(response.text, include_usage=True)
    assert FIRST[7].is_done_by(_calls(joined(chunks)))
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    pieces = [chunk for chunk in chunks if chunk["choices"][0]["delta"].get("tool_calls")]
    assert len(pieces) > (5 if choice == "required" else 1)


def _earlier(*cities: str) -> list[dict[str, Any]]:
    """A conversation in which two calls were made at once, and a question for two more."""
    calls = [
        {
            "id": f"call_{city}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": json.dumps({"city": city})},
        }
        for city in cities
    ]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "12 degrees, sunny"}
        for call in calls
    ]
    return [
        {"role": "user", "content": f"What is the weather in {' and in '.join(cities)}?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        *results,
        {"role": "assistant", "content": "It is sunny there, at 12 degrees."},
        {"role": "user", "content": "What is the weather in Paris and in Rome?"},
    ]


def test_several_calls_come_in_one_answer_unless_it_is_forbidden(served: Served) -> None:
    forced = {"messages": _earlier("Oslo", "Bergen"), "tools": DESK, "tool_choice": "required"}
    several, stream = served.both("", **forced)
    calls = _calls(several)
    assert [(name, made["city"]) for name, made in calls] == [
        ("get_weather", "Paris"),
        ("get_weather", "Rome"),
    ]
    assert _calls(stream) == calls
    assert _calls(served.ask("", **forced, parallel_tool_calls=False)) == calls[:1]


def test_a_result_is_told_to_who_asked(qwen: Served) -> None:
    """The loop that agents run: question, call, result, answer."""
    asked = qwen.ask(FIRST[0].question, tools=DESK)
    messages = [
        {"role": "user", "content": FIRST[0].question},
        asked["message"],
        {
            "role": "tool",
            "tool_call_id": asked["message"]["tool_calls"][0]["id"],
            "content": json.dumps({"temperature": 17, "sky": "cloudy"}),
        },
    ]
    answer = qwen.ask("", messages=messages, tools=DESK, tool_choice="none", max_tokens=60)
    assert "17" in answer["message"]["content"] and "cloudy" in answer["message"]["content"]


@pytest.mark.parametrize("question", [TIMER, "Write a poem."])
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_scores_come_with_tools(served: Served, choice: str, question: str) -> None:
    """Of the text's tokens, each once; a call has no text."""
    scoring = {"logprobs": True, "top_logprobs": 2, "max_tokens": 40}
    whole, stream = served.both(question, tools=DESK, tool_choice=choice, **scoring)
    scores = whole["logprobs"]["content"]
    assert "".join(score["token"] for score in scores) == (whole["message"]["content"] or "")
    assert all(score["logprob"] <= 0 and len(score["top_logprobs"]) == 2 for score in scores)
    assert [s["token"] for s in stream["scores"]] == [s["token"] for s in scores]
    found, expected = ([s["logprob"] for s in some] for some in (stream["scores"], scores))
    assert found == pytest.approx(expected, abs=DRAFTED)


@pytest.mark.parametrize("limit", [1, 2, 5, 9])
def test_a_forced_call_that_is_cut_off_is_none(served: Served, limit: int) -> None:
    question = FIRST[4].question
    answer = served.ask(question, tools=DESK, tool_choice="required", max_tokens=limit)
    assert answer["finish_reason"] == "length"
    assert not answer["message"].get("tool_calls") and not answer["message"]["content"]


@pytest.fixture(scope="module")
def thinker(
    model_path: Path, templates_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """SmolLM2 with the template of a model that thinks: it opens the reasoning in the prompt."""
    path = tmp_path_factory.mktemp("thinker") / "thinker.gguf"
    template = (templates_path / "Qwen-QwQ-32B.jinja").read_text()
    kind = gguf.GGUFValueType.STRING
    changed = {gguf.Keys.Tokenizer.CHAT_TEMPLATE: MetadataDetails(kind, template)}
    reader = gguf.GGUFReader(model_path)
    copy_with_new_metadata(reader, gguf.GGUFWriter(path, "llama"), changed, [])
    with (
        serving(path, "--slots", "2", "--ctx", "1024") as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield Served(client, "thinker")


@pytest.mark.parametrize("choice", ["required", choice_of("named", "set_timer")], ids=str)
def test_a_call_may_follow_reasoning(thinker: Served, choice: Any) -> None:
    """One call, of bounded arguments: in a text the smallest model may go on until the limit."""
    thinking = {"thinking_budget_tokens": 16, "chat_template_kwargs": {"enable_thinking": True}}
    one = {"tools": BOUNDED[:1], "tool_choice": choice, "parallel_tool_calls": False}
    whole, stream = thinker.both(TIMER, **one, extra_body=thinking)
    assert whole["finish_reason"] == "tool_calls" and not whole["message"]["content"]
    assert whole["message"]["reasoning_content"].strip()
    assert "think>" not in whole["message"]["reasoning_content"]
    assert _calls(whole, BOUNDED)
    assert stream["message"]["reasoning_content"] == whole["message"]["reasoning_content"]
    assert _calls(stream, BOUNDED) == _calls(whole, BOUNDED)
    assert list(stream["message"]) == ["content", "reasoning_content", "tool_calls"]


@pytest.mark.parametrize("choice", ["required", choice_of("named", "set_timer")], ids=str)
def test_of_several_tools_one_may_be_called_after_reasoning(thinker: Served, choice: Any) -> None:
    """Each answer by itself: what it thinks about them is another text the second time, where two
    words are as likely and a batch of another shape rounds otherwise."""
    thinking = {"thinking_budget_tokens": 16, "chat_template_kwargs": {"enable_thinking": True}}
    offered = {"tools": BOUNDED, "tool_choice": choice}
    whole, stream = thinker.both(TIMER, **offered, extra_body=thinking)
    assert whole["finish_reason"] == stream["reason"] == "tool_calls"
    for answer in (whole, stream):
        assert not answer["message"]["content"]
        assert answer["message"]["reasoning_content"].strip()
        assert "think>" not in answer["message"]["reasoning_content"]
        assert _calls(answer, BOUNDED)
    assert list(stream["message"]) == ["content", "reasoning_content", "tool_calls"]


def test_empty_lines_after_closed_reasoning_are_no_content(thinker: Served) -> None:
    """The template closes the block unless it is asked to think."""
    whole, stream = thinker.both("Write a poem.", logprobs=True, max_tokens=20)
    text = whole["message"]["content"]
    assert text and text == text.lstrip()
    assert stream["message"]["content"] == text
    for scores in (whole["logprobs"]["content"], stream["scores"]):
        assert "".join(score["token"] for score in scores) == text
        assert len(scores) < 20
