"""The cost model learns a machine it is shown, and is not turned by a stall."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.cost import CostModel, StepCost, attended

MACHINES = [(0.004, 0.003, 1e-7), (0.02, 0.0005, 2e-7), (0.0, 0.02, 0.0), (0.05, 0.001, 0.0)]
"""Seconds a step, a token, and a pair of tokens that attention looks at."""


def _seconds(machine: tuple[float, float, float], tokens: int, pairs: int) -> float:
    step, token, pair = machine
    return step + token * tokens + pair * pairs


def _shown(machine: tuple[float, float, float], steps: int, *, odd: float = 1.0) -> StepCost:
    """A model after noisy steps of every size, one in twenty of them `odd` times as long."""
    chance, cost = random.Random(1), StepCost(0.01)
    for number in range(steps):
        tokens = chance.choice([16, 64, 200, 512])
        pairs = attended(chance.randrange(3000), tokens)
        seconds = _seconds(machine, tokens, pairs) * chance.uniform(0.95, 1.05)
        cost.observe(tokens, pairs, seconds * (odd if number % 20 == 19 else 1.0))
    return cost


@pytest.mark.parametrize("machine", MACHINES)
def test_it_learns_a_linear_machine_in_tens_of_steps(machine: tuple[float, float, float]) -> None:
    cost = _shown(machine, 40)
    for tokens in (16, 100, 512):
        pairs = attended(1000, tokens)
        expected = _seconds(machine, tokens, pairs)
        assert cost.predict(tokens, pairs) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize(("odd", "within"), [(50.0, 0.35), (0.02, 0.6)])
def test_odd_steps_do_not_turn_it(odd: float, within: float) -> None:
    cost = _shown(MACHINES[0], 100, odd=odd)
    pairs = attended(1000, 200)
    assert cost.predict(200, pairs) == pytest.approx(_seconds(MACHINES[0], 200, pairs), rel=within)


def test_a_machine_that_really_slows_down_is_believed() -> None:
    cost = _shown((0.004, 0.003, 0.0), 40)
    for _ in range(80):
        cost.observe(100, 0, 2 * 0.304)
    assert cost.predict(100, 0) == pytest.approx(2 * 0.304, rel=0.2)


@given(
    st.lists(
        st.tuples(st.integers(1, 4096), st.integers(0, 10**9), st.floats(1e-6, 1e3)), max_size=40
    ),
    st.integers(1, 4096),
    st.integers(0, 10**9),
)
def test_predictions_are_finite_and_never_negative(
    steps: list[tuple[int, int, float]], tokens: int, pairs: int
) -> None:
    cost = StepCost(0.01)
    for step in steps:
        cost.observe(*step)
    assert math.isfinite(cost.predict(tokens, pairs))
    assert cost.predict(tokens, pairs) >= 0.0
    assert cost.predict(2 * tokens, pairs) >= cost.predict(tokens, pairs)


def test_before_the_first_step_it_says_what_it_was_told() -> None:
    assert StepCost(0.01).predict(100, 5000) == pytest.approx(1.0)


@given(st.integers(0, 4000), st.floats(0.0, 3.0), st.integers(0, 512))
def test_room_is_the_most_that_fits(context: int, seconds: float, most: int) -> None:
    model = CostModel()
    model.prefill = _shown(MACHINES[0], 30)
    room = model.prefill_room(context, seconds, most)
    assert 0 <= room <= most
    assert not room or model.prefill.predict(room, attended(context, room)) <= seconds
    if room < most:
        assert model.prefill.predict(room + 1, attended(context, room + 1)) > seconds


def test_attention_looks_back_on_what_came_before_and_on_itself() -> None:
    assert attended(0, 1) == 1
    assert attended(10, 3) == 11 + 12 + 13
