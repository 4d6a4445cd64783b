"""Guesses from a sequence's own text, and when they are worth sending."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.engine.drafting import GRAM, LONGEST, Drafter, best_length


def test_guesses_what_followed_the_last_three_tokens_the_last_time() -> None:
    drafter = Drafter()
    assert drafter.guess([1, 2, 3, 4, 5, 6, 1, 2, 3]) == [4, 5, 6, 1, 2, 3]
    assert drafter.guess([1, 2, 3, 4, 5, 6, 1, 2, 3, 9, 1, 2, 3]) == [9, 1, 2, 3]


@given(st.lists(st.integers(0, 3), min_size=GRAM, max_size=60))
def test_grown_token_by_token_it_guesses_as_if_new(tokens: list[int]) -> None:
    grown = Drafter()
    for end in range(GRAM, len(tokens) + 1):
        guess = grown.guess(tokens[:end])
        assert guess == Drafter().guess(tokens[:end])
        assert len(guess) <= LONGEST


def test_a_story_never_pays_for_a_draft() -> None:
    drafter = Drafter()
    tokens = list(range(100))
    for token in range(100, 160):
        assert best_length(drafter.acceptance, LONGEST, 100.0, lambda n: 0.004 * n) == 0
        drafter.guess(tokens)
        drafter.score([token], 0)
        tokens.append(token)


def test_a_copy_is_noticed_for_free_and_then_drafted_until_it_ends() -> None:
    drafter = Drafter()
    tokens = list(range(50)) + list(range(10))
    for token in range(10, 40):
        drafter.guess(tokens)
        drafter.score([token], 0)
        tokens.append(token)
    assert best_length(drafter.acceptance, LONGEST, 100.0, lambda n: 0.004 * n) >= 8
    for _ in range(12):
        drafter.score([999], LONGEST)
    assert best_length(drafter.acceptance, LONGEST, 100.0, lambda n: 0.004 * n) == 0


@given(
    st.floats(0, 1),
    st.integers(1, LONGEST),
    st.floats(1, 1000),
    st.floats(0.0001, 0.1),
    st.floats(0, 0.1),
)
def test_a_draft_is_sent_only_where_it_is_expected_to_gain(
    acceptance: float, available: int, rate: float, per_token: float, fixed: float
) -> None:
    def extra(tokens: int) -> float:
        return fixed + per_token * tokens

    length = best_length(acceptance, available, rate, extra)
    assert 0 <= length <= available
    if length:
        gained = sum(acceptance**i for i in range(1, length + 1))
        assert gained > rate * extra(length)
