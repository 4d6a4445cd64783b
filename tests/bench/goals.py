"""The rows of the comparison: what is measured, and what it should reach. Pure data and sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from server.bench.report import Row

Figure = Callable[[Row], float | None]


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure of one run, against the peer's: `target` is what the ratio must reach.

    `lower` figures (times) are divided peer by ours, so more is better everywhere; a target of
    1 / 1.2 then reads «at most 1.2 × the peer's».
    """

    title: str
    unit: str
    figure: Figure
    target: float
    lower: bool = False

    def ratio(self, ours: float, peers: float) -> float | None:
        above, below = (peers, ours) if self.lower else (ours, peers)
        return above / below if below else None


@dataclass(frozen=True, slots=True)
class Run:
    """What to put on a server; `requests` None leaves it to the case. `peer`: the other side."""

    case: str
    clients: int
    goals: tuple[Goal, ...]
    max_tokens: int | None = None
    requests: int | None = None
    tuned: bool = False
    peer: str = "llama-server"


@dataclass(frozen=True, slots=True)
class Result:
    """A goal with the figures of each repeat, ours and the peer's in the same order."""

    goal: Goal
    peer: str
    ours: tuple[float, ...]
    peers: tuple[float, ...]

    @property
    def ratio(self) -> float | None:
        """The median over the repeats of the ratio within a repeat: drift cancels out."""
        pairs = zip(self.ours, self.peers, strict=False)
        ratios = [ratio for pair in pairs if (ratio := self.goal.ratio(*pair)) is not None]
        return median(ratios) if ratios else None

    @property
    def met(self) -> bool | None:
        ratio = self.ratio
        return None if ratio is None else round(ratio, 3) >= round(self.goal.target, 3)


def tokens_a_second(row: Row) -> float | None:
    return row.output_rate or None


def _wall(row: Row) -> float | None:
    return row.wall


def _gap(row: Row) -> float | None:
    return row.itl.p99 if row.itl else None


RUNS = {
    "chat-1": Run("chat", 1, (Goal("1 client, short chat", "tok/s", tokens_a_second, 1.0),)),
    "chat-8": Run("chat", 8, (Goal("8 clients, short chats", "tok/s", tokens_a_second, 1.05),)),
    "shared-prefix": Run(
        "shared-prefix",
        8,
        (Goal("8 clients, one 750-token system prompt, cold", "s", _wall, 3.0, lower=True),),
    ),
    "multi-turn": Run(
        "multi-turn",
        12,
        (Goal("12 conversations × 4 turns on 8 slots", "s", _wall, 1.2, lower=True),),
    ),
    "intrusion": Run(
        "intrusion",
        4,
        (
            Goal("4 streams, three long prompts: p99 gap", "s", _gap, 20.0, lower=True),
            Goal("the same: total wall time", "s", _wall, 1 / 1.2, lower=True),
        ),
    ),
    "copy": Run("copy", 4, (Goal("4 clients, copy-heavy answers", "tok/s", tokens_a_second, 1.2),)),
    "tuned": Run(
        "chat",
        8,
        (Goal("8 clients, after `ingle tune`", "tok/s", tokens_a_second, 1.4),),
        tuned=True,
    ),
    "ceiling": Run(
        "chat",
        8,
        (Goal("8 clients, decode only", "tok/s", lambda row: row.decode_rate, 0.9),),
        max_tokens=128,
        requests=8,  # one a client, so that there is a time when all are being written
        peer="llama-batched-bench",
    ),
}


def markdown(results: Sequence[Result]) -> str:
    """The README's table: medians, the ratio of each, and what it should be."""
    lines = [
        "| case | Ingle | peer | ratio | target | |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        goal = result.goal
        ratio = result.ratio
        lines.append(
            f"| {goal.title} | {shown(result.ours, goal.unit)} | "
            f"{shown(result.peers, goal.unit)} ({result.peer}) | "
            f"{'–' if ratio is None else f'{ratio:.2f}'} | {goal.target:.2f} | {verdict(result)} |"
        )
    return "\n".join(lines) + "\n"


def shown(figures: Sequence[float], unit: str) -> str:
    if not figures:
        return "not measured"
    middle = median(figures)
    return f"{middle:.3g} {unit}" if middle < 10 else f"{middle:.1f} {unit}"


def verdict(result: Result) -> str:
    return {True: "pass", False: "MISS", None: "–"}[result.met]
