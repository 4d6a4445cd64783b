"""The workloads: right sizes, the same for a seed, and unique where a cache must not help."""

from __future__ import annotations

from itertools import takewhile
from random import Random

import pytest

from server.bench.cases import CASES, INTRUDER_TOKENS, SYSTEM_TOKENS, build
from server.bench.prose import TokenScale, prose
from server.bench.sweep import points
from server.core.errors import ConfigError

SCALE = TokenScale(per_word=1.25, template=30)


def shared(one: str, other: str) -> int:
    """Characters of their common prefix."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@pytest.mark.parametrize("name", CASES)
def test_a_seed_is_a_workload(name: str) -> None:
    assert build(name, SCALE, clients=4, seed=1) == build(name, SCALE, clients=4, seed=1)
    assert build(name, SCALE, clients=4, seed=1) != build(name, SCALE, clients=4, seed=2)


@pytest.mark.parametrize("name", CASES)
def test_no_two_prompts_share_more_than_a_word(name: str) -> None:
    work = build(name, SCALE, clients=4, requests=12)
    firsts = [session.turns[0] for session in (*work.sessions, *work.intruders)]
    firsts += [s.turns[0] for s in build(name, SCALE, clients=8, requests=12).sessions]
    for i, one in enumerate(firsts):
        for other in firsts[i + 1 :]:
            assert shared(one, other) < 30, (one[:60], other[:60])


def test_the_shared_prefix_is_shared_and_cold() -> None:
    work = build("shared-prefix", SCALE, clients=8)
    systems = {session.system for session in work.sessions}
    assert len(work.sessions) == 8
    assert len(systems) == 1
    (system,) = systems
    assert system is not None
    assert len(system.split()) == SYSTEM_TOKENS / SCALE.per_word
    again = build("shared-prefix", SCALE, clients=8, seed=1).sessions[0].system
    assert again is not None
    assert shared(system, again) < 30


def test_intruders_are_as_long_as_they_should_be() -> None:
    work = build("intrusion", SCALE, clients=4)
    assert (len(work.sessions), len(work.intruders), work.intrude_after > 0) == (4, 3, True)
    for session in work.intruders:
        tokens = SCALE.template + len(session.turns[0].split()) * SCALE.per_word
        assert tokens == pytest.approx(INTRUDER_TOKENS, abs=2)


def test_conversations_and_limits() -> None:
    work = build("multi-turn", SCALE, clients=12)
    assert [len(session.turns) for session in work.sessions] == [4] * 12
    assert build("chat", SCALE, clients=2, max_tokens=7).sessions[0].max_tokens == 7
    assert len(build("chat", SCALE, clients=1).sessions) == 8
    assert len(build("chat", SCALE, clients=8).sessions) == 32


def test_what_is_to_be_copied_is_in_the_prompt() -> None:
    plain, fix = build("copy", SCALE, clients=2, requests=2).sessions
    assert "exactly" in plain.turns[0]
    assert fix.turns[0].count(" teh ") == 1


def test_a_scale_from_two_measurements() -> None:
    scale = TokenScale.through((40, 30 + 50), (240, 30 + 300))
    assert (scale.per_word, scale.template) == (1.25, 30)
    assert len(prose(Random(0), scale.words(100)).split()) == 80


def test_points_of_a_sweep() -> None:
    assert points(["chat"], None) == (("chat", 1), ("chat", 2), ("chat", 4), ("chat", 8))
    assert points(["copy", "chat"], "2, 3") == (
        ("copy", 2),
        ("copy", 3),
        ("chat", 2),
        ("chat", 3),
    )
    assert {name for name, _ in points(["all"], None)} == set(CASES)
    with pytest.raises(ConfigError, match="unknown case chats"):
        points(["chats"], None)
    with pytest.raises(ConfigError, match="--concurrency 1,x is not valid"):
        points(["chat"], "1,x")
