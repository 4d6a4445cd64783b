"""What clients do to one another through a real model: too much text, grammars, words alike."""

from __future__ import annotations

import os
import random
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import takewhile
from typing import Any

import httpx2
import openai
import pytest

from tests.e2e.conftest import until
from tests.faults.test_grammars import HARD, HOSTILE

from .case import CONTEXT, Case, Serve

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

QUESTION = "Tell me of a garden."
KEYS = ("sk-anna", "sk-bert")
CLIENTS, REQUESTS, CRASH_AT = 8, 12, 30
OPENINGS = [
    "You are terse. " + "The house rules are the same for all who ask here. " * n for n in range(4)
]


class Beside:
    """A neighbour that talks the whole time, answer after answer."""

    def __init__(self, case: Case, pool: ThreadPoolExecutor) -> None:
        self._case, self._over = case, False
        self._talk: Future[list[str]] = pool.submit(self._talks)
        until(lambda: case.metric("ingle_requests_running") >= 1, 20)

    def _talks(self) -> list[str]:
        said = []
        with self._case.client() as client:
            while not self._over or not said:
                said.append(self._case.say(client, QUESTION))
        return said

    def check(self) -> None:
        self._over = True
        for text in self._talk.result(60):
            assert len(text) > 100 and self._case.is_greedy(QUESTION, text), text


def posted(case: Case, path: str, body: dict[str, Any]) -> httpx2.Response:
    return httpx2.post(f"{case.url}{path}", json={"model": case.model, **body}, timeout=60)


def test_a_context_is_filled_to_its_last_token_and_no_further(serve: Serve) -> None:
    case = serve()
    with ThreadPoolExecutor(1) as pool:
        beside = Beside(case, pool)
        for length, answered in ((CONTEXT - 20, 20), (CONTEXT - 2, 2), (CONTEXT - 1, 1)):
            prompt = [1000 + n for n in range(length)]
            body = {"prompt": prompt, "max_tokens": 50, "ignore_eos": True, "temperature": 0}
            told = posted(case, "/v1/completions", body).raise_for_status().json()
            assert told["choices"][0]["finish_reason"] == "length"
            assert told["usage"]["prompt_tokens"] == length
            assert told["usage"]["completion_tokens"] == answered
        computed = case.metric("ingle_prompt_tokens_total")
        for length in (CONTEXT, CONTEXT + 1, CONTEXT * 10):
            body = {"prompt": [1000] * length, "max_tokens": 1}
            refused = posted(case, "/v1/completions", body)
            error = refused.json()["error"]
            assert (refused.status_code, error["code"]) == (400, "context_length_exceeded")
            assert str(length) in error["message"] and str(CONTEXT) in error["message"]
        beside.check()
    assert case.metric("ingle_prompt_tokens_total") - computed < CONTEXT, "it was refused first"
    endless = posted(case, "/v1/chat/completions", {**_hi(), "ignore_eos": True}).json()
    assert endless["choices"][0]["finish_reason"] == "length"
    assert endless["usage"]["total_tokens"] == CONTEXT


def _hi() -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}


def test_hostile_grammars_cost_the_model_nothing(serve: Serve) -> None:
    """All at once: each is refused, the engine lives, and it still follows a good one."""
    case = serve()
    before = case.engine.pid

    def refused(asked: dict[str, Any]) -> httpx2.Response:
        while True:
            answer = posted(case, "/v1/chat/completions", _hi() | {"max_tokens": 8} | asked)
            if answer.status_code != 503:
                return answer

    with ThreadPoolExecutor(8) as pool:
        beside = Beside(case, pool)
        answers = dict(zip(HOSTILE, pool.map(refused, HOSTILE.values()), strict=True))
        hard = list(pool.map(refused, HARD.values()))
        beside.check()
    for name, answer in answers.items():
        assert answer.status_code in (400, 413), name
        assert answer.json()["error"]["message"], name
    assert {answer.status_code for answer in hard} <= {200, 400}
    assert case.engine.pid == before and case.metric("ingle_engine_restarts_total") == 0
    chosen = _hi() | {"guided_choice": ["left", "right"]}
    said = posted(case, "/v1/chat/completions", chosen).json()["choices"][0]["message"]["content"]
    assert said in ("left", "right")


def test_a_hundred_requests_keep_their_words_and_their_keys(serve: Serve) -> None:
    """Eight clients of two keys share openings; some leave, and the engine dies once. Each has
    a word of its own that the model goes on with, so what it hears tells whose it is."""
    case = serve(key=KEYS[0], api_key=",".join(KEYS))
    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = [pool.submit(_talk, case, number) for number in range(CLIENTS)]
        until(lambda: case.metric("ingle_requests_finished_total") >= CRASH_AT, 60)
        os.kill(case.engine.pid, signal.SIGSEGV)
        told = [one for talk in asked for one in talk.result(200)]
    assert len(told) == CLIENTS * REQUESTS
    words = {one.word for one in told}
    assert len(words) == len(told)
    for one in told:
        assert not [word for word in words - {one.word} if word in one.text], one
    whole = [one for one in told if one.usage is not None]
    assert len(whole) > len(told) / 2
    assert sum(one.word in one.text for one in whole) > len(whole) / 2, "nothing could be seen"
    _check_keys(case, whole, told)
    assert case.metric("ingle_engine_restarts_total") == 1
    until(lambda: case.metric("ingle_slots_busy") == 0)


class _Told:
    def __init__(self, chance: random.Random, key: str) -> None:
        self.key = key
        self.word = "".join(chance.choices("bcdfgklmnprstvz", k=7))
        self.opening = chance.choice(OPENINGS)
        self.text = ""
        self.usage: Any = None

    @property
    def prompt(self) -> str:
        return self.opening + f"\n{self.word}" * 5


def _talk(case: Case, number: int) -> list[_Told]:
    chance, key = random.Random(number), KEYS[number % len(KEYS)]
    told = [_Told(chance, key) for _ in range(REQUESTS)]
    with case._replace(key=key).client() as client:
        for one in told:
            _hear(case, client, one, leaves=chance.random() < 0.2)
    return told


def _hear(case: Case, client: openai.OpenAI, one: _Told, *, leaves: bool) -> None:
    stream = client.completions.create(
        model=case.model,
        prompt=one.prompt,
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    with stream:
        for chunk in stream:
            one.usage = chunk.usage or one.usage
            one.text += "".join(choice.text for choice in chunk.choices)
            if leaves and one.text:
                return


def _check_keys(case: Case, whole: list[_Told], told: list[_Told]) -> None:
    """What was reused of a prompt is no longer than what others of its key begin with too."""
    tokens = {one.word: _tokens(case, one) for one in told}

    def longest(one: _Told, others: list[_Told]) -> int:
        shared = (_shared(tokens[one.word], tokens[other.word]) for other in others)
        return max(shared, default=0)

    reused, leak = 0, 0
    for one in whole:
        own = longest(one, [o for o in told if o.key == one.key and o is not one])
        leak += longest(one, [o for o in told if o.key != one.key]) > own
        assert one.usage.prompt_tokens_details.cached_tokens <= own
        reused += one.usage.prompt_tokens_details.cached_tokens
    assert reused > 10 * len(whole) and leak, "there was something to leak"


def _shared(one: list[int], other: list[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _tokens(case: Case, one: _Told) -> list[int]:
    headers = {"authorization": f"Bearer {one.key}"}
    body = {"model": case.model, "content": one.prompt, "add_special": True}
    found = httpx2.post(f"{case.url}/tokenize", json=body, headers=headers).json()["tokens"]
    return [int(token) for token in found]
