"""`make compare`: Ingle against llama-server of the same llama.cpp, in turn, on this machine.

Each case runs A B, B A, A B …: a fresh server process each time, only one alive; the same file,
threads, slots, context and prompts. The client runs on the same cores as the server it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from server.bench.cases import build
from server.bench.prose import TokenScale
from server.bench.report import Row, summarise
from server.bench.run import Outcome, Server

from .goals import RUNS, Goal, Result, Run, markdown
from .machine import about, can_tune, linked_model, peer_binaries, tuned
from .servers import ingle, llama_server

SLOTS = 8
OURS, PEER = "ingle", "peer"
BENCH_PROMPT = 64
UNEVEN = 0.05
BUSY = 0.7
FAIRNESS = (
    "medians of the repeats; the ratio is the median of each repeat's own, more is better",
    "the client ran on the same cores as the server, and cost the same for both",
    "a fresh server process for each measurement, one alive at a time, in turn",
)


@dataclass(slots=True)
class Comparison:
    options: argparse.Namespace
    binaries: Path
    model: Path
    home: Path
    load_before: float
    scale: TokenScale | None = None
    rows: dict[str, dict[str, list[Row]]] = field(default_factory=dict)
    ceilings: list[float] = field(default_factory=list)
    timelines: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    async def run(self) -> None:
        for name in self.options.cases:
            run = RUNS[name]
            with tuned(self.model, self.home) if run.tuned else nullcontext():
                for repeat in range(self.options.repeats):
                    await self._repeat(name, run, repeat)

    async def _repeat(self, name: str, run: Run, repeat: int) -> None:
        """Whoever is second may find a warmer machine, so the order turns."""
        sides = [OURS, PEER] if repeat % 2 == 0 else [PEER, OURS]
        for side in sides:
            if self.options.only not in (None, side):
                continue
            if side == PEER and run.peer == "llama-batched-bench":
                self.ceilings.append(self._batched_bench(run))
                say(f"{name} {repeat + 1}: {run.peer} {self.ceilings[-1]:.1f} tok/s")
                continue
            async with self._server(side) as server:
                outcome = await self._measure(server, run, seed=1000 * repeat + self.options.seed)
            self._keep(name, side, outcome, repeat)

    async def _measure(self, server: Server, run: Run, seed: int) -> Outcome:
        if self.scale is None:
            self.scale = await server.calibrate(seed)
        await server.warm_up(seed)
        workload = build(
            run.case,
            self.scale,
            clients=run.clients,
            requests=self.options.requests or run.requests,
            max_tokens=self.options.max_tokens or run.max_tokens,
            seed=seed,
        )
        return await server.run(workload)

    def _keep(self, name: str, side: str, outcome: Outcome, repeat: int) -> None:
        row = summarise(outcome)
        self.rows.setdefault(name, {}).setdefault(side, []).append(row)
        gap = f", gap p99 {row.itl.p99 * 1000:.0f} ms" if row.itl else ""
        say(f"{name} {repeat + 1}: {side} {row.output_rate:.1f} tok/s in {row.wall:.1f} s{gap}")
        if row.errors:
            self.failures.append(f"{name}, {side}: {row.errors} failed: {row.first_error}")
        if outcome.arrived is not None and outcome.answers:
            first = outcome.answers[0]
            self.timelines[side] = [moment - outcome.arrived for moment in first.chunks]

    @asynccontextmanager
    async def _server(self, side: str) -> AsyncIterator[Server]:
        o = self.options
        if side == PEER:
            running = llama_server(
                self.binaries / "llama-server",
                self.model,
                slots=SLOTS,
                context=o.ctx,
                threads=o.threads,
            )
        else:
            words = ["--slots", str(SLOTS), "--ctx", str(o.ctx), "--threads", str(o.threads)]
            running = ingle(str(self.model), words, self.home)
        async with running as server:
            yield server

    def _batched_bench(self, run: Run) -> float:
        """Decode tokens a second of the bare engine, one KV stream a sequence as in the servers."""
        o = self.options
        words = [str(self.binaries / "llama-batched-bench"), "-m", str(self.model)]
        words += ["-c", str(SLOTS * o.ctx), "-t", str(o.threads), "-npp", str(BENCH_PROMPT)]
        words += ["-ntg", str(o.max_tokens or run.max_tokens), "-npl", str(run.clients)]
        words += ["--no-kv-unified", "--output-format", "jsonl"]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"error: {' '.join(words)}:\n{done.stderr[-2000:]}")
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        return float(json.loads(lines[-1])["speed_tg"])

    def results(self) -> list[Result]:
        return [
            self._result(name, run, goal)
            for name, run in RUNS.items()
            if name in self.options.cases
            for goal in run.goals
        ]

    def _result(self, name: str, run: Run, goal: Goal) -> Result:
        rows = self.rows.get(name, {})
        ours, peers = (
            tuple(figure for row in rows.get(side, []) if (figure := goal.figure(row)) is not None)
            for side in (OURS, PEER)
        )
        if run.peer == "llama-batched-bench":
            peers = tuple(self.ceilings)
        return Result(goal, run.peer, ours, peers)

    def _about(self) -> dict[str, Any]:
        o = self.options
        shape = {"slots": SLOTS, "ctx": o.ctx, "threads": o.threads, "repeats": o.repeats}
        run = {"seed": o.seed, "load_average_before": self.load_before}
        return about(self.model, self.binaries) | shape | run

    def notes(self) -> list[str]:
        """Where the two sides did not write the same amount, wall times say less."""
        found = []
        for name, sides in self.rows.items():
            ours, peers = (sum(r.output_tokens for r in sides.get(s, [])) for s in (OURS, PEER))
            if ours and peers and abs(ours / peers - 1) > UNEVEN:
                found.append(f"{name}: ingle wrote {ours} tokens, llama-server {peers}")
        return found

    def as_dict(self) -> dict[str, Any]:
        return {
            "about": self._about(),
            "results": [
                {
                    "case": result.goal.title,
                    "unit": result.goal.unit,
                    "peer": result.peer,
                    "ingle": result.ours,
                    "peers": result.peers,
                    "ratio": result.ratio,
                    "target": result.goal.target,
                    "met": result.met,
                }
                for result in self.results()
            ],
            "rows": msgspec.to_builtins(self.rows),
            "batched_bench": self.ceilings,
            "intrusion_timeline": self.timelines,
            "failures": self.failures,
        }


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    binaries = peer_binaries(options.peer_build) if options.only != OURS else Path()
    busy = os.getloadavg()[0]
    if busy > BUSY:
        say(f"warning: the load average is {busy:.1f}; other work disturbs what is measured")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ingle-compare-") as folder:
        home = Path(folder)
        model = linked_model(options.model, home)
        comparison = Comparison(options, binaries, model, home, busy)
        if "tuned" in options.cases and not can_tune():
            say("tuned: left out, this ingle has no `tune`")
            options.cases.remove("tuned")
        try:
            asyncio.run(comparison.run())
        finally:
            report(comparison, options.out)
    if comparison.failures:
        raise SystemExit(1)


def report(comparison: Comparison, out: Path) -> None:
    results = comparison.results()
    print(f"\n{markdown(results)}")
    for line in [*FAIRNESS, *comparison.notes(), *comparison.failures]:
        print(f"- {line}")
    (out / "compare.json").write_text(json.dumps(comparison.as_dict(), indent=2) + "\n")
    (out / "compare.md").write_text(markdown(results))
    try:
        from .plots import draw
    except ImportError:
        say("no plots: matplotlib is missing, install the extra: pip install -e '.[bench]'")
    else:
        draw(results, comparison.timelines, out)
    say(f"written to {out}/")


def say(text: str) -> None:
    print(text, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.compare",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a name or a .gguf file")
    parser.add_argument(
        "--peer-build", type=Path, help="script that builds llama-server; prints its folder last"
    )
    parser.add_argument("--cases", type=_cases, default=",".join(RUNS), help="separated by commas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ctx", type=int, default=2048, help="tokens a slot")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--requests", type=int, help="conversations a run, for a quick look")
    parser.add_argument("--max-tokens", type=int, help="limit of an answer, for a quick look")
    parser.add_argument("--only", choices=(OURS, PEER))
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    options = parser.parse_args()
    if options.peer_build is None and options.only != OURS:
        parser.error("--peer-build is needed, unless --only ingle")
    return options


def _cases(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in RUNS:
            raise argparse.ArgumentTypeError(f"unknown case {name}; there are {', '.join(RUNS)}")
    return names


if __name__ == "__main__":
    main()
