from __future__ import annotations

import numpy as np
import pytest

from server.llama.divergence import agreements, divergences, log_softmax


def rows(*probabilities: tuple[float, ...]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities, np.float32))


def test_log_softmax_survives_large_logits() -> None:
    found = log_softmax(np.array([[1000.0, 1000.0], [-1e30, 0.0]], np.float32))
    assert found[0] == pytest.approx([np.log(0.5)] * 2)
    assert found[1] == pytest.approx([-1e30, 0.0])


def test_a_model_does_not_diverge_from_itself() -> None:
    logits = np.random.default_rng(1).normal(size=(50, 1000)).astype(np.float32) * 5
    same = log_softmax(logits)
    assert divergences(same, log_softmax(logits + 3)) == pytest.approx(np.zeros(50), abs=1e-5)
    assert agreements(same, same).all()


def test_known_values() -> None:
    reference, other = rows((0.5, 0.5), (0.75, 0.25)), rows((0.25, 0.75), (0.75, 0.25))
    expected = 0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)
    assert divergences(reference, other) == pytest.approx([expected, 0], abs=1e-6)
    assert agreements(reference, other).tolist() == [False, True]


def test_what_a_model_rules_out() -> None:
    assert divergences(rows((1.0, 0.0)), rows((0.5, 0.5)))[0] == pytest.approx(np.log(2))
    assert divergences(rows((1.0, 0.0)), rows((1.0, 0.0)))[0] == 0
    assert divergences(rows((0.5, 0.5)), rows((1.0, 0.0)))[0] == np.inf
