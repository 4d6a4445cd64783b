"""A greedy neighbour: many long requests of one key do not hold up a few short ones of another."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from itertools import pairwise

import openai
import pytest

from tests.e2e.conftest import Server, Start

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.timeout(180)]

GREEDY = 50
LONG = "long " * 12
SLOTS = 2


@dataclass
class Course:
    """One stream: when it was asked, and when text came."""

    asked: float
    came: list[float] = field(default_factory=list)
    text: str = ""

    @property
    def waited(self) -> float:
        return self.came[0] - self.asked

    @property
    def turn(self) -> float:
        return self.came[-1] - self.came[0]


async def _stream(client: openai.AsyncOpenAI, text: str) -> Course:
    course = Course(time.monotonic())
    async for chunk in await client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": text}], temperature=0, stream=True
    ):
        if chunk.choices[0].delta.content:
            course.came.append(time.monotonic())
            course.text += chunk.choices[0].delta.content
    return course


async def _modest(client: openai.AsyncOpenAI, greedy: asyncio.Future[list[Course]]) -> list[Course]:
    """A short request a second, as long as the greedy ones go on."""
    courses = []
    while not greedy.done():
        course = await _stream(client, "short")
        courses.append(course)
        await asyncio.wait([greedy], timeout=max(0.0, course.asked + 1 - time.monotonic()))
    return courses


def _client(server: Server, key: str) -> openai.AsyncOpenAI:
    base = f"{server.base}/v1"
    return openai.AsyncOpenAI(base_url=base, api_key=key, max_retries=0, timeout=120)


async def test_a_key_with_one_request_waits_for_two_turns_at_most(start: Start) -> None:
    server = start("echo=echo:rate=100", api_key="greedy,modest", slots=SLOTS)
    async with _client(server, "greedy") as many, _client(server, "modest") as few:
        alone = max([(await _stream(few, "short")).waited for _ in range(3)])
        greedy = asyncio.gather(*(_stream(many, f"{n} {LONG}") for n in range(GREEDY)))
        modest = await _modest(few, greedy)
        courses = await greedy
    assert [course.text for course in courses] == [f"{n} {LONG}" for n in range(GREEDY)]
    assert len(modest) >= 5 and {course.text for course in modest} == {"short"}
    turn = max(course.turn for course in courses)
    assert max(course.waited for course in modest[:-1]) <= 2 * turn + alone
    _check_idle_slots_are_used(courses)


def _check_idle_slots_are_used(courses: list[Course]) -> None:
    """While a slot is not the modest one's, a greedy one has it: their turns leave no long gaps."""
    turns = sorted((course.came[0], course.came[-1]) for course in courses)
    busy = sum(end - begin for begin, end in turns)
    whole = max(end for _, end in turns) - turns[0][0]
    assert busy > 0.8 * SLOTS * whole, f"the slots were used {busy / whole / SLOTS:.0%}"
    assert all(after[0] - before[0] < 1.0 for before, after in pairwise(turns))
