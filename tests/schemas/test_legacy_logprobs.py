"""Scores in the lists of /v1/completions: parts of characters, and texts that look the same."""

from __future__ import annotations

import json

from server.core.types import PromptScored, Scored, TokenLogprob
from server.schemas.legacy_logprobs import Logprobs


def _scored(data: bytes | None, logprob: float, text: str | None = None) -> Scored:
    return Scored(0, text or (data or b"").decode(errors="replace"), data, logprob)


def _one(chosen: Scored, *top: Scored) -> Logprobs:
    return Logprobs.of([TokenLogprob(chosen, top, 0)])


def test_parts_of_characters_are_told_apart() -> None:
    found = _one(_scored(b"\xf0\x9f", -1.0), _scored(b"\xf0\x9f", -1.0), _scored(b"\xe8", -2.0))
    assert found.tokens == ["bytes:\\xf0\\x9f"]
    assert found.top_logprobs == [{"bytes:\\xf0\\x9f": -1.0, "bytes:\\xe8": -2.0}]


def test_a_replacement_character_that_the_model_wrote_is_text() -> None:
    assert _one(_scored("\ufffd".encode(), -1.0)).tokens == ["\ufffd"]


def test_a_control_token_is_its_spelling() -> None:
    assert _one(_scored(None, -1.0, "<|end|>")).tokens == ["<|end|>"]


def test_of_two_that_look_the_same_the_likelier_counts() -> None:
    end, spelled = _scored(None, -3.0, "<|end|>"), _scored(b"<|end|>", -0.5)
    for chosen, top in ((end, (spelled, end)), (spelled, (spelled, end)), (end, (spelled,))):
        found = _one(chosen, *top)
        assert found.token_logprobs == [chosen.logprob]
        assert found.top_logprobs == [{"<|end|>": -0.5}]


def test_the_chosen_token_is_among_its_alternatives_whether_likely_or_not() -> None:
    found = _one(_scored(b"z", -8.0), _scored(b"a", -0.5), _scored(b"b", -1.0))
    assert found.top_logprobs == [{"a": -0.5, "b": -1.0, "z": -8.0}]


def test_the_lists_grow_together_and_are_json() -> None:
    prompt = PromptScored("p", "ab", (TokenLogprob(_scored(b"b", -2.0), (), 1),))
    found = Logprobs.of_prompt(prompt)
    found.extend(Logprobs.of([TokenLogprob(_scored(b"c", -3.0), (), 0)], shift=2))
    assert json.loads(json.dumps(found.body())) == {
        "tokens": ["a", "b", "c"],
        "token_logprobs": [None, -2.0, -3.0],
        "top_logprobs": [None, {"b": -2.0}, {"c": -3.0}],
        "text_offset": [0, 1, 2],
    }


def test_what_stands_before_the_prompt_has_scores_and_no_text() -> None:
    """`<s> a`: the token for the beginning, and a space that the tokenizer wants."""
    scores = tuple(
        TokenLogprob(_scored(data, -1.0), (), offset) for data, offset in ((b" a", 3), (b"b", 5))
    )
    found = Logprobs.of_prompt(PromptScored("p", "<s> ab", scores), hidden=4)
    assert (found.tokens, found.text_offset) == (["<s>", " a", "b"], [0, 0, 1])
    alone = Logprobs.of_prompt(PromptScored("p", "<s>", ()), hidden=3)
    assert (alone.tokens, alone.token_logprobs, alone.text_offset) == (["<s>"], [None], [0])
