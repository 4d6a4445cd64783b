from __future__ import annotations

import random

import pytest

from server.core.config import Tuning
from server.llama.probe import Quality, Speed
from server.tune.candidates import Candidate, formats_for, size_of, variants
from server.tune.choice import Contender, Goal, climb, gains, objection, seconds, winner

NEAR = Quality(0.005, 0.95, 361)
FAR = Quality(0.26, 0.73, 361)


def speed(factor: float = 1.0, *, prefill: float = 1.0) -> Speed:
    return Speed(256 * factor * prefill, 128 * factor, 256 * factor, 100, 10)


def shipped(*factors: float) -> Contender:
    return Contender(Candidate(), [speed(f) for f in factors or (1, 1, 1)])


def encoded(*factors: float, quality: Quality | None = NEAR) -> Contender:
    return Contender(Candidate("Q8_0"), [speed(f) for f in factors], quality)


def threads(*factors: float) -> Contender:
    return Contender(Candidate(tuning=Tuning(threads=1)), [speed(f) for f in factors])


def test_the_goals_are_answers_of_one_user_and_of_eight() -> None:
    assert seconds(speed(), "latency") == pytest.approx(2)
    assert seconds(speed(), "throughput") == pytest.approx(8 * 1.5)
    assert seconds(speed(2), "throughput") == pytest.approx(8 * 0.75)


@pytest.mark.parametrize(
    ("goal", "best"),
    [("latency", "one"), ("throughput", "many")],
)
def test_the_goal_decides(goal: Goal, best: str) -> None:
    one = Contender(Candidate("Q8_0"), [Speed(256, 160, 256, 1, 1)] * 3, NEAR)
    many = Contender(Candidate("BF16"), [Speed(256, 100, 512, 1, 1)] * 3, NEAR)
    assert winner(shipped(), [one, many], goal) is {"one": one, "many": many}[best]


def test_the_fastest_that_is_near_wins() -> None:
    far, fast, faster = encoded(3, 3, 3, quality=FAR), threads(1.2, 1.2, 1.2), encoded(2, 2, 2)
    assert winner(shipped(), [far, fast, faster], "throughput") is faster
    assert winner(shipped(), [far], "throughput").candidate == Candidate()


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (encoded(1.04, 1.04, 1.04), "a gain under 5%"),
        (encoded(0.9, 0.9, 0.9), "not faster"),
        (encoded(2, 2, 2, quality=FAR), "answers differ too much"),
        (encoded(2, 2, 2, quality=None), "not chosen unless its divergence is measured"),
        (encoded(2, 2, 2, quality=Quality(0.02, 0.95, 9)), "answers differ too much"),
        (encoded(2, 2, 2, quality=Quality(0.01, 0.9, 9)), "answers differ too much"),
        (Contender(Candidate("BF16"), [speed(9)], NEAR, "failed: signal 9"), "failed: signal 9"),
        (encoded(), "not measured"),
        (encoded(1.05, 1.06, 1.05), None),
        (threads(1.2, 1.2, 1.2), None),
        (threads(0.9, 0.9, 3, 3), "not faster in most rounds"),
        (threads(1.02, 1.02, 1.02, 1.02), "a gain under 5%"),
    ],
)
def test_objections(other: Contender, why: str | None) -> None:
    assert objection(shipped(1, 1, 1, 1), other, "throughput") == why


def test_settings_do_not_ride_on_weights() -> None:
    plain, full, better = encoded(1.5, 1.5, 1.5), encoded(1.52, 1.52, 1.52), encoded(2, 2, 2)
    assert winner(shipped(), [plain, full], "latency") is full
    assert climb(shipped(), [plain, full], "latency") is plain
    assert climb(shipped(), [plain, better], "latency") is better
    assert climb(shipped(), [encoded(1, 1, 1), better], "latency") is better


def test_a_slow_round_hurts_both_of_a_pair() -> None:
    base, other = shipped(1, 0.3, 0.9), encoded(1.5, 0.45, 1.35)
    assert gains(base.speeds, other.speeds, "latency") == pytest.approx([0.5] * 3)


def test_a_base_that_was_disturbed_in_most_rounds_is_not_beaten() -> None:
    base, other = shipped(0.3, 1, 0.3), threads(1.01, 0.9, 1.01)
    assert objection(base, other, "latency") == "not sure: too much noise"


@pytest.mark.parametrize("true", [0.9, 1.0, 1.6])
def test_noise_neither_invents_nor_hides_a_winner(true: float) -> None:
    """Neighbours slow single measurements by up to 15 %, and whole rounds by up to half."""
    wrong = 0
    for seed in range(200):
        noise = random.Random(seed)
        rounds = [1 - 0.5 * noise.random() for _ in range(5)]
        base = shipped(*(r * (1 - 0.15 * noise.random()) for r in rounds))
        other = encoded(*(true * r * (1 - 0.15 * noise.random()) for r in rounds))
        wrong += (winner(base, [other], "throughput") is other) != (true > 1)
    assert wrong <= 20


def test_formats_follow_the_file_and_the_processor() -> None:
    assert formats_for("Q4_1", {"avx512_bf16"}) == ["Q8_0", "BF16", "Q4_0"]
    assert formats_for("Q8_0", {"avx2"}) == []
    assert formats_for("IQ4_XS", {"asimdhp"}) == ["Q8_0", "F16", "IQ4_NL"]
    assert formats_for("Q4_K_M", frozenset()) == ["Q8_0", "BF16"]
    assert size_of("Q8_0", 1_000_000_000) == pytest.approx(1.06e9, rel=0.06)


def test_variants_differ_from_the_base_in_one_setting() -> None:
    base = Candidate("Q8_0", Tuning(threads=1))
    for factor in ("threads", "flash attention", "KV type", "micro-batch"):
        for other in variants(factor, base, 4):
            assert other != base
            assert other.weights == "Q8_0"
    assert variants("KV type", Candidate(tuning=Tuning(flash_attention=False)), 2) == []
    texts = [other.text(2) for other in variants("micro-batch", base, 2)]
    assert texts[0] == "Q8_0 weights, 1 thread, micro-batch 32"
    assert Candidate().text(2) == "as shipped"
