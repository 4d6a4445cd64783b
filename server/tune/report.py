"""What a tune found, as plain data for the table and for --json."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from msgspec import Struct

from server.llama.probe import Quality, Speed

from .candidates import Candidate
from .choice import LEAST_GAIN, Contender, Goal, gains, objection, seconds, typical


class Row(Struct, frozen=True):
    """A contender in figures: medians over the rounds; `seconds` for the goal's answers."""

    name: str
    candidate: Candidate
    speed: Speed | None
    seconds: float | None
    gain: float | None
    quality: Quality | None
    verdict: str


class Race(Struct, frozen=True):
    """Contenders that differ in one thing, measured in turn; the first row is the one to beat."""

    factor: str
    rows: tuple[Row, ...]


class Report(Struct, frozen=True):
    """`choice` is None when the file as shipped is best. `gain` is what `after` does more of the
    goal than `before`, which is the file as shipped: 0.4 is 40 % more.

    `busy` is the share of the processor that other programs took meanwhile.
    """

    model: str
    quantisation: str
    goal: Goal
    processor: str
    cores: int
    engine: str
    rounds: int
    busy: float
    races: tuple[Race, ...]
    choice: Candidate | None
    gain: float
    quality: Quality | None
    before: Speed
    after: Speed


def race_of(
    factor: str,
    base: Contender,
    others: Sequence[Contender],
    won: Contender,
    goal: Goal,
    *,
    cores: int,
    least: float = LEAST_GAIN,
) -> Race:
    rows = [_row(base, base, "kept" if won is base else "beaten", goal, cores)]
    for other in others:
        fit = "faster, but another is chosen"
        verdict = "best" if other is won else objection(base, other, goal, least) or fit
        rows.append(_row(base, other, verdict, goal, cores))
    return Race(factor, tuple(rows))


def _row(base: Contender, other: Contender, verdict: str, goal: Goal, cores: int) -> Row:
    speed = typical(other.speeds) if other.speeds else None
    each = gains(base.speeds, other.speeds, goal)
    return Row(
        name=other.candidate.text(cores),
        candidate=other.candidate,
        speed=speed,
        seconds=seconds(speed, goal) if speed else None,
        gain=median(each) if each and other is not base else None,
        quality=other.quality,
        verdict=verdict,
    )
