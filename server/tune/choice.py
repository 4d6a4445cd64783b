"""Which contender is worth it. Pure: measurements in, a verdict out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal

from msgspec import Struct, field

from server.llama.probe import Quality, Speed

from .candidates import Candidate

Goal = Literal["latency", "throughput"]

PROMPT_TOKENS, ANSWER_TOKENS, CLIENTS = 256, 128, 8
LEAST_GAIN = 0.05
LEAST_GAIN_WITHOUT_FLASH = 0.15
"""A full context was measured four times slower without it: small gains in a short one mislead."""
MOST_DIVERGENCE = 0.02
LEAST_AGREEMENT = 0.90


class Contender(Struct):
    """A candidate and what was measured of it, one speed a round."""

    candidate: Candidate
    speeds: list[Speed] = field(default_factory=list)
    quality: Quality | None = None
    problem: str | None = None


def seconds(speed: Speed, goal: Goal) -> float:
    """One user's answer, or the answers of eight users at once."""
    if goal == "latency":
        return PROMPT_TOKENS / speed.prefill + ANSWER_TOKENS / speed.decode_one
    return CLIENTS * (PROMPT_TOKENS / speed.prefill + ANSWER_TOKENS / speed.decode_many)


def gains(base: Sequence[Speed], other: Sequence[Speed], goal: Goal) -> list[float]:
    """By round, how much more of the goal is done in a time: 0.1 is 10 % more.

    Pairs measured next to each other are compared, so that a slow minute hurts both.
    """
    return [seconds(b, goal) / seconds(o, goal) - 1 for b, o in zip(base, other, strict=False)]


def typical(speeds: Sequence[Speed]) -> Speed:
    return Speed(
        prefill=median(s.prefill for s in speeds),
        decode_one=median(s.decode_one for s in speeds),
        decode_many=median(s.decode_many for s in speeds),
        weights=speeds[0].weights,
        kv_token=speeds[0].kv_token,
    )


def peak(speeds: Sequence[Speed]) -> Speed:
    """The least disturbed of each: neighbours only ever make a measurement slower."""
    return Speed(
        prefill=max(s.prefill for s in speeds),
        decode_one=max(s.decode_one for s in speeds),
        decode_many=max(s.decode_many for s in speeds),
        weights=speeds[0].weights,
        kv_token=speeds[0].kv_token,
    )


def is_near(quality: Quality) -> bool:
    return quality.divergence < MOST_DIVERGENCE and quality.agreement > LEAST_AGREEMENT


def objection(
    base: Contender, other: Contender, goal: Goal, least: float = LEAST_GAIN
) -> str | None:
    """Why `other` does not replace `base`; None when it may."""
    if other.problem:
        return other.problem
    if other.candidate.changes_answers:
        if other.quality is None:
            return "not chosen unless its divergence is measured"
        if not is_near(other.quality):
            return "answers differ too much"
    if base.candidate.tuning.flash_attention and not other.candidate.tuning.flash_attention:
        least = max(least, LEAST_GAIN_WITHOUT_FLASH)
    each = gains(base.speeds, other.speeds, goal)
    if not each:
        return "not measured"
    if median(each) < least:
        return f"a gain under {least:.0%}" if median(each) > 0 else "not faster"
    if 3 * sum(gain > 0 for gain in each) < 2 * len(each):
        return "not faster in most rounds"
    if gains([peak(base.speeds)], [peak(other.speeds)], goal)[0] < least:
        return "not sure: too much noise"
    return None


def winner(
    base: Contender, others: Iterable[Contender], goal: Goal, least: float = LEAST_GAIN
) -> Contender:
    """The best of those without objection, else `base`."""
    fit = [other for other in others if objection(base, other, goal, least) is None]
    return max(fit, key=lambda o: median(gains(base.speeds, o.speeds, goal)), default=base)


def climb(
    base: Contender, steps: Iterable[Contender], goal: Goal, least: float = LEAST_GAIN
) -> Contender:
    """A step is taken only when it pays over where we are: one does not ride on another's gain."""
    for step in steps:
        if objection(base, step, goal, least) is None:
            base = step
    return base
