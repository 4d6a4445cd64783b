"""A real model's engine dies, hangs and computes nonsense; its requests notice a pause at most."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest

from tests.e2e.conftest import until

from .case import SLOTS, TOKENS, Case, Serve

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

QUESTIONS = ("Name three rivers.", "What is a stone?", "Tell me of a garden.", "Who wrote letters?")
QUICK = {"watchdog_seconds": "2"}


def together(case: Case, questions: tuple[str, ...] = QUESTIONS, **more: Any) -> list[str]:
    """Streams at once; of one that fails its error's code."""

    def one(question: str) -> str:
        try:
            return case.say(client, question, **more)
        except openai.APIError as error:
            return f"error {error.code}"

    with case.client() as client, ThreadPoolExecutor(len(questions)) as pool:
        return list(pool.map(one, questions))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("abort", "SIGABRT"), ("segv", "SIGSEGV"), ("terminate", "SIGABRT")],
)
def test_a_native_death_costs_a_pause(serve: Serve, kind: str, reason: str) -> None:
    """Four run and four wait."""
    case = serve(f"{kind}@word=letters,step=30..")
    waiting = tuple(f"{question} Answer in one word." for question in QUESTIONS)
    texts = together(case, QUESTIONS + waiting, max_tokens=TOKENS)
    assert not any(text.startswith("error") for text in texts)
    assert case.metric("ingle_engine_restarts_total") == 1
    assert f'reason="{reason}"}} 1.0' in case.scraped()
    assert case.outcome("stop") + case.outcome("length") == 8
    assert case.process.is_running() and case.ready()
    for question, text in zip(QUESTIONS + waiting, texts, strict=True):
        assert text and case.is_greedy(question, text), text


def test_a_frozen_engine_is_ended(serve: Serve) -> None:
    """It knows by then how long its steps take, and asks for no more patience."""
    case = serve(**QUICK)
    together(case)
    with ThreadPoolExecutor(1) as pool:
        generated = case.metric("ingle_step_seconds_count")
        asked = pool.submit(together, case, max_tokens=100)
        until(lambda: case.metric("ingle_step_seconds_count") > generated + 20, 20)
        os.kill(case.engine.pid, signal.SIGSTOP)
        until(lambda: not case.ready(), 4)
        assert httpx2.get(f"{case.url}/livez").status_code == 200
        until(lambda: case.metric("ingle_engine_restarts_total") == 1, 4)
        texts = asked.result(100)
    assert all(text and not text.startswith("error") for text in texts), texts
    assert 'reason="hang"} 1.0' in case.scraped()


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_client_that_leaves_frees_its_slot(serve: Serve, phase: str) -> None:
    case = serve()
    with ThreadPoolExecutor(1) as pool, case.client() as client:
        neighbour = pool.submit(case.say, client, QUESTIONS[0], max_tokens=120)
        until(lambda: case.metric("ingle_slots_busy") == 1)
        words = "many different words " * (130 if phase == "prefill" else 1)
        body = httpx2.Request(
            "POST", case.url, json=case.body(words, max_tokens=300, stream=True, n=2)
        ).content
        raw = socket.create_connection(("127.0.0.1", int(case.url.rpartition(":")[2])), timeout=30)
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: "
            b"application/json\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )
        until(lambda: case.metric("ingle_slots_busy") >= 2)
        if phase == "decode":
            while b'"content": "' not in raw.recv(4096).replace(b'"content": ""', b""):
                pass
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left_at = time.monotonic()
        raw.close()
        until(lambda: case.metric("ingle_slots_busy") <= 1, 5)
        took = time.monotonic() - left_at
        until(lambda: case.outcome("cancelled") == 1, 2)
        text = neighbour.result(60)
    # A step takes 250 ms at most here, and the machine may be busy.
    assert took < 1.5
    assert case.is_greedy(QUESTIONS[0], text) and len(text) > 200


@pytest.mark.parametrize("status", [1, -1])
def test_a_batch_that_is_refused_costs_the_request_at_fault(serve: Serve, status: int) -> None:
    case = serve(f"decode={status}@word=letters,step=12..14")
    texts = together(case)
    assert texts[3] == "error engine_error"
    assert all(text and not text.startswith("error") for text in texts[:3]), texts
    assert case.metric("ingle_engine_restarts_total") == 0
    with case.client() as client:
        assert case.say(client, QUESTIONS[3])


@pytest.mark.parametrize("status", [2, -3])
def test_a_batch_that_breaks_the_context_costs_a_pause(serve: Serve, status: int) -> None:
    case = serve(f"decode={status}@step=12")
    texts = together(case)
    assert all(text and not text.startswith("error") for text in texts), texts
    assert case.metric("ingle_engine_restarts_total") == 1


def test_numbers_that_are_none_end_their_request_alone(serve: Serve) -> None:
    case = serve("nan@word=letters,step=14")
    texts = together(case)
    assert texts[3] == "error numeric_error"
    assert all(text and not text.startswith("error") for text in texts[:3]), texts
    assert case.metric("ingle_engine_restarts_total") == 0
    with case.client() as client:
        assert case.say(client, QUESTIONS[3])


def test_numbers_that_are_none_for_all_are_the_engines_fault(serve: Serve) -> None:
    case = serve("nan@step=14")
    texts = together(case)
    assert all(text and not text.startswith("error") for text in texts), texts
    assert case.metric("ingle_engine_restarts_total") == 1


def test_numbers_that_stay_none_end_what_was_there(serve: Serve) -> None:
    """After a first restart each request ends, and when that is over the server goes on."""
    case = serve("nan@step=14..,start=1; nan@step=1..,start=2..3")
    texts = together(case)
    assert {*texts} == {"error engine_error", "error numeric_error"}
    assert case.metric("ingle_engine_restarts_total") == 3
    until(case.ready, 30)
    with case.client() as client:
        until(lambda: bool(_said(case, client)), 60)


def _said(case: Case, client: openai.OpenAI) -> str:
    try:
        return case.say(client, QUESTIONS[0])
    except openai.APIError:
        return ""


def test_told_to_stop_it_ends_what_runs_and_what_waits(serve: Serve) -> None:
    """`serve` sees that it exits with 0."""
    case = serve()
    questions = tuple(f"Tell me about the number {number}." for number in range(10))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(together, case, questions, max_tokens=80)
        until(lambda: case.metric("ingle_requests_running") == SLOTS, 20)
        until(lambda: case.metric("ingle_requests_waiting") == len(questions) - SLOTS, 20)
        case.process.terminate()
        until(lambda: not case.ready(), 1)
        late = httpx2.post(f"{case.url}/v1/chat/completions", json=case.body("too late"))
        assert (late.status_code, late.json()["error"]["code"]) == (503, "server_shutdown")
        texts = asked.result()
    assert not [text for text in texts if not text or text.startswith("error")]
