"""How many of the tool tasks a server does, asked through the SDK that people have."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import httpx2
import jsonschema
import openai

from .tool_tasks import Made, Task

Way = Literal["text", "auto", "required", "named"]
"""`tool_choice`; or what the model writes to the same prompt, left to itself."""
WAYS: tuple[Way, ...] = ("text", "auto", "required", "named")
LONGEST = 100
"""Tokens; the longest right answer has about sixty."""


class Answer(NamedTuple):
    """`valid`: it holds calls, all of offered tools and with arguments that fit their schemas."""

    task: Task
    finish: str
    calls: list[Made]
    valid: bool
    text: str

    @property
    def right(self) -> bool:
        return self.valid and self.task.is_done_by(self.calls)

    @property
    def named(self) -> bool:
        """Whether all it calls is the tool of the task."""
        return self.valid and {name for name, _ in self.calls} == {self.task.tool}


class Score(NamedTuple):
    right: int
    valid: int
    named: int
    tasks: int


def choice_of(way: Way, tool: str) -> Any:
    return {"type": "function", "function": {"name": tool}} if way == "named" else way


def ask(client: openai.OpenAI, model: str, task: Task, way: Way) -> Answer:
    """A request that is refused or fails is an answer without calls."""
    if way == "text":
        return _written(client, model, task)
    try:
        made = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": task.question}],
            tools=task.tools,  # type: ignore[arg-type]
            tool_choice=choice_of(way, task.tool),
            temperature=0,
            max_tokens=LONGEST,
        )
    except openai.APIStatusError as error:
        return Answer(task, f"HTTP {error.status_code}", [], False, error.message)
    (choice,) = made.choices
    message = choice.message.model_dump()
    calls, valid = calls_of(message, task.tools)
    return Answer(task, choice.finish_reason, calls, valid, message["content"] or "")


def _written(client: openai.OpenAI, model: str, task: Task) -> Answer:
    """The model's own text, read as a person would."""
    url = str(client.base_url).removesuffix("/").removesuffix("/v1")
    messages = [{"role": "user", "content": task.question}]
    body = {"model": model, "messages": messages, "tools": task.tools}
    prompt = httpx2.post(f"{url}/apply-template", json=body, timeout=60).json()["prompt"]
    made = client.completions.create(
        model=model, prompt=prompt, temperature=0, max_tokens=LONGEST
    ).choices[0]
    calls = calls_in(made.text)
    written = [{"function": {"name": n, "arguments": json.dumps(a)}} for n, a in calls]
    calls, valid = calls_of({"tool_calls": written}, task.tools)
    return Answer(task, made.finish_reason, calls, valid, made.text)


def calls_in(text: str) -> list[Made]:
    """Objects with a name and arguments anywhere in a text; the last bracket may be missing."""
    calls: list[Made] = []
    at = 0
    while (at := text.find("{", at)) >= 0:
        for end in ("", "}"):
            try:
                value, stop = json.JSONDecoder().raw_decode(text[at:].rstrip() + end)
            except ValueError:
                continue
            if isinstance(value.get("name"), str) and isinstance(value.get("arguments"), dict):
                calls.append((value["name"], value["arguments"]))
                at += stop - 1
            break
        at += 1
    return calls


def calls_of(message: dict[str, Any], tools: list[dict[str, Any]]) -> tuple[list[Made], bool]:
    """The calls of a message, as far as they are any; and whether all are as offered."""
    offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    calls: list[Made] = []
    for call in message.get("tool_calls") or []:
        name = call["function"]["name"]
        try:
            arguments = json.loads(call["function"]["arguments"])
            jsonschema.validate(arguments, offered[name])
        except (ValueError, KeyError, jsonschema.ValidationError):
            return calls, False
        calls.append((name, arguments))
    return calls, bool(calls)


def score(answers: Iterable[Answer]) -> Score:
    answers = list(answers)
    return Score(
        right=sum(answer.right for answer in answers),
        valid=sum(answer.valid for answer in answers),
        named=sum(answer.named for answer in answers),
        tasks=len(answers),
    )
