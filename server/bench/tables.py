"""The figures for people: two tables that fit a terminal, and what needs a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .report import Row, Spread


def tables(rows: Sequence[Row]) -> Group:
    parts: list[RenderableType] = [_throughput(rows), _latency(rows)]
    parts += [Text(note) for row in rows for note in notes(row)]
    return Group(*parts)


def _throughput(rows: Sequence[Row]) -> Table:
    heads = ("requests", "failed", "wall s", "tok/s", "each", "req/s", "cached")
    table = _table("Throughput", heads)
    for row in rows:
        table.add_row(
            row.case,
            str(row.clients),
            str(row.requests),
            str(row.errors),
            f"{row.wall:.1f}",
            f"{row.output_rate:.1f}",
            "–" if row.client_rate is None else f"{row.client_rate:.1f}",
            f"{row.request_rate:.2f}",
            f"{row.cached_share:.0%}",
        )
    return table


def _latency(rows: Sequence[Row]) -> Table:
    heads = ("first token", "between chunks", "whole answer")
    table = _table("Latency, ms: p50 p95 p99", heads)
    for row in rows:
        spreads = (row.ttft, row.itl, row.e2e)
        table.add_row(row.case, str(row.clients), *map(milliseconds, spreads))
    return table


def _table(title: str, heads: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("case", no_wrap=True)
    for head in ("clients", *heads):
        table.add_column(head, justify="right", no_wrap=True)
    return table


def milliseconds(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return " ".join(f"{value * 1000:.0f}" for value in (spread.p50, spread.p95, spread.p99))


def notes(row: Row) -> Iterator[str]:
    if row.first_error is not None:
        yield f"{row.case}: {row.errors} of {row.requests} requests failed: {row.first_error}"
    if row.valid_json is not None:
        complete = row.requests - row.errors
        yield f"{row.case}: {row.valid_json} of {complete} answers are JSON objects"
    if row.intruder_ttft is not None and row.itl is None:
        yield f"{row.case}: the streams ended before the long prompts came; raise --max-tokens"
    if row.intruder_ttft is not None and row.itl is not None:
        yield (
            f"{row.case}: longest gap of a stream {row.itl.max * 1000:.0f} ms; first token of the "
            f"{row.intruder_prompt_tokens}-token prompts after {row.intruder_ttft.p50:.1f} s (p50)"
        )
