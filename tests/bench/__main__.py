"""`make bench`: does batching pay, how long do people wait, and what does Python cost?

Starts `ingle serve` on a free port, measures one client and eight, and eight that want a JSON
Schema or scores, and stops it. Not a test: the figures are printed with what they should reach, and
only failed requests make it fail.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal

from rich.console import Console

from server.bench.cases import Workload
from server.bench.client import get
from server.bench.report import Row
from server.bench.run import Server
from server.bench.sweep import Sweep
from server.bench.tables import tables

from .servers import ingle

FEW, MANY = 1, 8
GAIN = 1.4
PYTHON_SHARE = 0.05
KEPT = {"json-list": 0.85, "logprobs": 0.8}
"""Of the tokens a second of plain text."""


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    served = ["--slots", str(MANY), *options.serve]
    rows, share = asyncio.run(_measure(options.model, served, options))
    console = Console()
    console.print(tables(rows))
    few, many, *extras = rows
    print(verdict(few.output_rate, many.output_rate, share))
    for row in extras:
        print(cost(row.case, row.output_rate, many.output_rate))
    if any(row.errors for row in rows):
        raise SystemExit(1)


def verdict(few: float, many: float, share: float | None) -> str:
    gain = many / few if few else 0.0
    met = _met(gain >= GAIN)
    lines = [
        f"{FEW} client    {few:.1f} tok/s",
        f"{MANY} clients   {many:.1f} tok/s, {gain:.2f} × one client: {met} {GAIN} ×",
    ]
    if share is not None:
        met = _met(share < PYTHON_SHARE)
        lines.append(f"Python      {share:.1%} of step time: {met} under {PYTHON_SHARE:.0%}")
    return "\n".join(lines)


def cost(case: str, rate: float, plain: float) -> str:
    kept = rate / plain if plain else 0.0
    met = _met(kept >= KEPT[case])
    return f"{case:11} {rate:.1f} tok/s, {kept:.0%} of plain text: {met} {KEPT[case]:.0%}"


def step_share(metrics: str, before: str = "") -> float | None:
    """Step time spent outside the model, between two scrapes of /metrics."""
    seconds = _sample(metrics, "ingle_step_seconds_sum") - _sample(before, "ingle_step_seconds_sum")
    overhead = "ingle_step_overhead_seconds_total"
    spent = _sample(metrics, overhead) - _sample(before, overhead)
    return spent / seconds if seconds > 0 else None


async def _measure(
    model: str, served: list[str], options: argparse.Namespace
) -> tuple[list[Row], float | None]:
    async with ingle(model, served) as server:
        before = await _metrics(server)
        plain, extras = [("chat", FEW), ("chat", MANY)], [(case, MANY) for case in KEPT]
        rows = await _rows(server, plain, options)
        share = step_share(await _metrics(server), before)
        return rows + await _rows(server, extras, options), share


async def _rows(
    server: Server, points: list[tuple[str, int]], options: argparse.Namespace
) -> list[Row]:
    sweep = Sweep(tuple(points), options.seed, options.requests, options.max_tokens)
    _, rows = await sweep.run(server.endpoint, server.model, _announce)
    return rows


async def _metrics(server: Server) -> str:
    return (await get(server.endpoint.root, "/metrics")).decode()


def _announce(workload: Workload) -> None:
    print(f"{workload.case}, {workload.clients} client(s)", flush=True)


def _sample(metrics: str, name: str) -> float:
    """The sum over all labels."""
    found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)", metrics, re.MULTILINE)
    return sum(map(float, found))


def _met(good: bool) -> str:
    return "meets" if good else "MISSES"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a name or a .gguf file")
    parser.add_argument("--requests", type=int, help="chats at each number of clients")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "serve", nargs="*", metavar="-- OPTION", help="further options of `ingle serve`"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
