"""What models should take: what fits together is there together, what does not takes turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.errors import StartupError
from server.engine.needs import Needs, allot
from server.llama.shape import COMPUTE_RESERVE, StateSize, choose_shape

MIB, GIB = 1 << 20, 1 << 30
SMALL = Needs(weights=92 * MIB, token_bytes=23_040, context_train=8192, kept_bytes=GIB)
LARGE = Needs(weights=5 * GIB, token_bytes=131_072, context_train=32_768, kept_bytes=GIB)


def test_models_that_fit_together_share_equally() -> None:
    allotted = allot({"a": SMALL, "b": SMALL}, 16 * GIB)
    assert allotted == {"a": 8 * GIB, "b": 8 * GIB}
    assert sum(SMALL.estimate(size) for size in allotted.values()) <= 16 * GIB


def test_a_large_model_beside_small_ones_gets_what_it_needs() -> None:
    allotted = allot({"a": SMALL, "b": SMALL, "large": LARGE}, 12 * GIB)
    assert allotted["large"] == LARGE.decent > 12 * GIB // 3
    assert LARGE.estimate(allotted["large"]) <= allotted["large"]


def test_replicas_share_what_their_model_gets() -> None:
    two = Needs(**{**{f: getattr(SMALL, f) for f in SMALL.__struct_fields__}, "replicas": 2})
    assert allot({"a": two}, 8 * GIB) == {"a": 4 * GIB}


needs = st.builds(
    Needs,
    weights=st.integers(MIB, 8 * GIB),
    token_bytes=st.integers(0, 1 << 18),
    context_train=st.integers(128, 1 << 17),
    kind=st.sampled_from(["generate", "embed", "rerank"]),
    context=st.none() | st.integers(64, 1 << 15),
    slots=st.none() | st.integers(1, 64),
    kept_bytes=st.integers(0, 2 * GIB),
)


@given(needs, st.integers(0, 64 * GIB))
def test_an_estimate_is_what_the_engine_would_choose_and_within_what_it_may_take(
    need: Needs, allotted: int
) -> None:
    try:
        estimate = need.estimate(allotted)
    except StartupError:
        return
    assert estimate >= need.weights
    if need.kind != "generate":
        return
    state = StateSize(fixed=0, per_token=need.token_bytes)
    shape = choose_shape(
        context_train=need.context_train,
        state=state,
        free_bytes=allotted - need.weights,
        context=need.context,
        slots=need.slots,
    )
    least = need.weights + COMPUTE_RESERVE + state.of(shape)
    assert least <= estimate <= max(allotted, least) and estimate - least <= need.kept_bytes


@given(st.dictionaries(st.text(max_size=3), needs, min_size=1, max_size=5), st.integers(0, 1 << 36))
def test_nobody_is_allotted_more_than_there_is(models: dict[str, Needs], budget: int) -> None:
    allotted = allot(models, budget)
    assert all(0 <= size <= budget for size in allotted.values())
    if sum(need.decent for need in models.values()) <= budget / len(models):
        assert sum(allotted.values()) <= budget


def test_a_context_that_the_model_was_not_trained_for_is_refused_as_the_engine_refuses_it() -> None:
    with pytest.raises(StartupError, match="8192 tokens this model was trained for"):
        Needs(weights=1, token_bytes=1, context_train=8192, context=9000).estimate(GIB)
