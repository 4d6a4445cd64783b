"""Scores against the plain formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.types import LEAST_LOGPROB
from server.llama.scores import likeliest, score


@given(st.integers(1, 2000), st.integers(0, 30), st.integers(0, 1 << 32))
def test_scores_are_the_log_softmax(size: int, top: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 5, size).astype(np.float32)
    token = int(random.integers(size))
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact - exact.max()).sum()) + exact.max()
    found = score(logits, token, top)
    assert found.logprob == pytest.approx(exact[token], abs=1e-4)
    best = np.argsort(-logits, kind="stable")[:top]
    assert [token for token, _ in found.top] == best.tolist()
    assert [logprob for _, logprob in found.top] == pytest.approx(exact[best].tolist(), abs=1e-4)


def test_equal_ones_come_by_id_wherever_they_stand() -> None:
    logits = np.zeros(5000, np.float32)
    assert likeliest(logits, 4).tolist() == [0, 1, 2, 3]
    logits[[4999, 77, 3000]] = 1.0
    assert likeliest(logits, 4).tolist() == [77, 3000, 4999, 0]


def test_what_a_model_rules_out_is_still_a_number() -> None:
    logits = np.full(300, -np.inf, np.float32)
    logits[7] = 3.0
    assert score(logits, 8, 0).logprob == LEAST_LOGPROB
    assert score(logits, 7, 0).logprob == 0.0
    assert score(logits, 7, 2).top == ((7, 0.0), (0, LEAST_LOGPROB))
