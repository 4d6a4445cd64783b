"""From times and usage blocks to figures."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from server.bench.cases import Session, Workload
from server.bench.client import Answer, PromptDetails, Usage
from server.bench.report import Spread, as_csv, as_json, decode_rate, percentile, summarise
from server.bench.run import Outcome
from server.bench.tables import tables
from tests.bench.__main__ import cost, step_share, verdict
from tests.bench.goals import RUNS, Goal, Result, markdown


def answer(*chunks: float, tokens: int = 0, cached: int = 0, **more: Any) -> Answer:
    usage = Usage(100, tokens, PromptDetails(cached))
    ended = chunks[-1] if chunks else 0.0
    return Answer(0.0, ended, list(chunks), usage=usage, finish_reason="stop", **more)


def outcome(*answers: Answer, **more: Any) -> Outcome:
    schema = {"type": "object"} if more.pop("schema", False) else None
    work = Workload("chat", 2, (Session(("hi",), 64, schema=schema),))
    return Outcome(work, list(answers), started=0.0, ended=4.0, **more)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_lies_among_the_values(values: list[float], share: float) -> None:
    ranked = sorted(values)
    value = percentile(ranked, share)
    assert ranked[0] <= value * (1 + 1e-9) and value <= ranked[-1] * (1 + 1e-9)
    below = sum(other <= value * (1 + 1e-9) for other in ranked)
    assert below >= share * (len(ranked) - 1)


def test_percentiles_are_numpys() -> None:
    assert percentile([1, 2, 3, 4], 0.5) == 2.5
    assert percentile([0, 10], 0.99) == pytest.approx(9.9)
    assert percentile([7], 0.99) == 7
    assert Spread.of([]) is None


def test_tokens_are_the_servers_count_not_chunks() -> None:
    row = summarise(outcome(answer(1, 2, tokens=30, cached=80), answer(1, 3, 4, tokens=10)))
    assert (row.output_tokens, row.output_rate) == (40, 10)
    assert (row.prompt_tokens, row.cached_tokens, row.cached_share) == (200, 80, 0.4)
    assert row.client_rate == pytest.approx((30 / 2 + 10 / 4) / 2)
    assert row.request_rate == 0.5
    assert row.ttft is not None and (row.ttft.count, row.ttft.max) == (2, 1)
    assert row.itl is not None and (row.itl.count, row.itl.max) == (3, 2)
    assert row.e2e is not None and row.e2e.p50 == 3


def test_errors_count_and_spoil_nothing() -> None:
    broken = Answer(0.0, 9.0, [8.0], error="500 oops")
    row = summarise(outcome(answer(1, 2, tokens=8), broken))
    assert (row.requests, row.errors, row.first_error) == (2, 1, "500 oops")
    assert row.output_tokens == 8
    assert row.e2e is not None and row.e2e.max == 2


def test_only_errors_still_make_a_row_and_tables() -> None:
    row = summarise(outcome(Answer(error="400 no")))
    assert (row.output_rate, row.ttft, row.itl, row.decode_rate) == (0, None, None, None)
    assert "1 of 1 requests failed: 400 no" in text_of(row)


def test_gaps_of_an_intrusion_count_from_the_arrival() -> None:
    streams = answer(0.1, 0.2, 3.2, 3.3, tokens=4)
    intruder = answer(3.5, 3.6, tokens=2)
    row = summarise(outcome(streams, intruders=[intruder], arrived=0.5))
    assert row.itl is not None
    assert row.itl.count == 2
    assert row.itl.max == pytest.approx(3.0)
    assert row.ttft is not None and row.ttft.count == 1
    assert row.intruder_ttft is not None and row.intruder_ttft.p50 == 3.5
    assert row.output_tokens == 6
    assert "longest gap of a stream 3000 ms" in text_of(row)


def test_streams_that_ended_before_the_intrusion_measure_nothing() -> None:
    row = summarise(outcome(answer(0.1, 0.2, tokens=2), intruders=[answer(2.0)], arrived=0.5))
    assert row.itl is None
    assert "ended before" in text_of(row)


def test_decode_rate_is_of_the_time_when_all_are_written() -> None:
    early = answer(*[i / 10 for i in range(1, 21)], tokens=20)
    late = answer(*[1 + i / 10 for i in range(1, 21)], tokens=40)
    assert decode_rate([early, late]) == pytest.approx(9 * (1 + 2) / 0.9)
    assert decode_rate([answer(1, 2, tokens=9), answer(3, 4, tokens=9)]) is None


def test_json_answers_are_checked() -> None:
    good, bad = answer(1, text='{"a": 1}'), answer(1, text='{"a": ')
    assert summarise(outcome(good, bad, schema=True)).valid_json == 1
    assert summarise(outcome(good)).valid_json is None
    cut = replace(bad, finish_reason="length")
    assert summarise(outcome(cut, schema=True)).valid_json is None, "the limit cut every one"


def test_json_and_csv_hold_every_figure() -> None:
    rows = [summarise(outcome(answer(1, 2, tokens=8))), summarise(outcome(Answer(error="no")))]
    loaded = json.loads(as_json({"model": "m"}, rows))
    assert loaded["model"] == "m"
    assert loaded["rows"][0]["ttft"]["p99"] == 1
    first, second = csv.DictReader(io.StringIO(as_csv(rows)))
    assert (first["ttft_p50"], first["output_tokens"]) == ("1.0", "8")
    assert (second["ttft_p50"], second["first_error"]) == ("", "no")


def test_tables_fit_a_terminal() -> None:
    rows = [summarise(outcome(answer(1, 2, tokens=8))) for _ in range(2)]
    text = text_of(*rows)
    assert "1000 1000 1000" in text
    assert "…" not in text


def test_ratios_are_taken_within_a_repeat() -> None:
    faster = Goal("x", "tok/s", lambda row: row.output_rate, 1.5)
    assert Result(faster, "p", (10, 40, 30), (5, 20, 10)).ratio == 2
    shorter = Goal("y", "s", lambda row: row.wall, 3.0, lower=True)
    result = Result(shorter, "p", (2.0,), (5.0,))
    assert (result.ratio, result.met) == (2.5, False)
    assert (Result(faster, "p", (), (5.0,)).ratio, Result(faster, "p", (1,), ()).met) == (None,) * 2


def test_a_limit_on_the_wall_time_is_a_ratio_too() -> None:
    wall = RUNS["intrusion"].goals[1]
    assert Result(wall, "p", (12.0,), (10.0,)).met
    assert Result(wall, "p", (12.2,), (10.0,)).met is False


def test_the_markdown_has_a_line_a_result_losses_too() -> None:
    goal = Goal("slow", "tok/s", lambda row: row.output_rate, 1.0)
    lines = markdown([Result(goal, "p", (9.0,), (10.0,)), Result(goal, "p", (9.0,), ())])
    assert "| slow | 9 tok/s | 10.0 tok/s (p) | 0.90 | 1.00 | MISS |" in lines
    assert "not measured" in lines


def test_the_python_share_is_between_two_scrapes() -> None:
    def scrape(seconds: float, overhead: float) -> str:
        return (
            f'ingle_step_seconds_sum{{model_name="m"}} {seconds}\n'
            f'ingle_step_overhead_seconds_total{{model_name="m"}} {overhead}\n'
            f'ingle_step_overhead_seconds_created{{model_name="m"}} 1e9\n'
        )

    assert step_share(scrape(12, 1.2), scrape(2, 1)) == pytest.approx(0.02)
    assert step_share("") is None
    assert "1.50 × one client: meets 1.4 ×" in verdict(100, 150, None)
    assert "6.0% of step time: MISSES under 5%" in verdict(100, 150, 0.06)
    assert "85% of plain text: meets 85%" in cost("json-list", 170, 200)
    assert "79% of plain text: MISSES 80%" in cost("logprobs", 158, 200)


def text_of(*rows: Any) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(tables(rows))
    return console.export_text()
