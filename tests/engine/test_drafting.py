"""Guesses from a sequence's own text, and when they are worth sending."""

from __future__ import annotations

from math import prod

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
        guess = drafter.guess(tokens)
        assert best_length(drafter.chances(len(guess)), 100.0, lambda n: 0.004 * n) == 0
        drafter.score([token], 0)
        tokens.append(token)


def _drafted(drafter: Drafter, tokens: list[int]) -> int:
    """How many guesses would be sent where one costs four tenths of a token."""
    guess = drafter.guess(tokens)
    return best_length(drafter.chances(len(guess)), 100.0, lambda n: 0.004 * n)


def test_a_copy_is_noticed_for_free_and_then_drafted_until_it_ends() -> None:
    drafter = Drafter()
    tokens = list(range(50)) + list(range(3))
    sent_after = 0
    for token in range(3, 40):
        if _drafted(drafter, tokens) >= 4:
            break
        drafter.score([token], 0)
        tokens.append(token)
        sent_after += 1
    assert sent_after <= 8, "a copy is a copy after a few tokens"
    for _ in range(12):
        drafter.score([999], LONGEST)
    assert _drafted(drafter, tokens) == 0


def test_short_matches_that_mislead_say_nothing_against_long_ones() -> None:
    drafter = Drafter()
    for _ in range(20):
        drafter.guess([1, 2, 3, 4, 9, 1, 2, 3])
        drafter.score([7], 0)
    assert drafter.chances(1)[0] < 0.1
    assert _drafted(drafter, [*range(100, 130), *range(100, 120)]) >= 8


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=LONGEST),
    st.floats(1, 1000),
    st.floats(0.0001, 0.1),
    st.floats(0, 0.1),
)
def test_a_draft_is_sent_only_where_it_is_expected_to_gain(
    chances: list[float], rate: float, per_token: float, fixed: float
) -> None:
    def extra(tokens: int) -> float:
        return fixed + per_token * tokens

    length = best_length(chances, rate, extra)
    assert 0 <= length <= len(chances)
    if length:
        gained = sum(prod(chances[:end]) for end in range(1, length + 1))
        assert gained > rate * extra(length)
