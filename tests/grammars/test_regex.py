"""Regular expressions: what they match, against Python's `re`, and what is refused."""

from __future__ import annotations

import json
import re

import hypothesis
import pytest
from hypothesis import strategies as st

from server.core.errors import InvalidRequest
from server.services.grammars import choice_body, json_body, regex_body

from .acceptance import accepted_by, accepts, matcher

pytestmark = pytest.mark.filterwarnings("ignore:Possible nested set")

ALPHABET = "ab1_- .\né[]^\\"

pieces = st.sampled_from(
    [
        *"ab1_-é{}]",
        *[r"\d", r"\w", r"\s", r"\.", r"\-", r"\/", "[ab]", "[^a]", r"[\w-]", r"[^\d\s]", "[-a]"],
        *["[a-]", r"[\]a]", "[[a]", r"[\\^]", "(?:a|b1)", "(a|)", "(?:b)", r"\x61", r"\u00e9"],
        *["a{2}", "(?:ab){1,2}", "b*?", "1+", "a?", r"[a-c]", "a{x"],
    ]
)
branches = st.lists(pieces, max_size=4).map("".join)
anchored = st.builds(
    "{}{}{}".format, st.sampled_from(["", "^"]), branches, st.sampled_from(["", "$"])
)
patterns = st.one_of(
    st.lists(anchored, min_size=1, max_size=3).map("|".join),
    st.lists(anchored, min_size=1, max_size=2).map("|".join).map("^({})$".format),
    st.lists(anchored, min_size=1, max_size=2).map("|".join).map("({})".format),
)
texts = st.lists(st.text(ALPHABET, max_size=5), max_size=20)


@hypothesis.settings(max_examples=150)
@hypothesis.given(patterns, texts)
def test_a_pattern_of_a_schema_is_searched_for(pattern: str, candidates: list[str]) -> None:
    try:
        body = json_body({"type": "string", "pattern": pattern}, param="response_format")
    except InvalidRequest as error:
        assert "middle" in error.message or "nothing to repeat" in error.message
        hypothesis.reject()
    made, wanted = matcher(body), re.compile(pattern.replace("$", r"\Z"), re.ASCII)
    for text in candidates:
        written = json.dumps(text, ensure_ascii=False)
        assert accepted_by(made, written) == bool(wanted.search(text)), (pattern, text, body)


@hypothesis.settings(max_examples=100)
@hypothesis.given(st.lists(branches, min_size=1, max_size=3).map("|".join), texts)
def test_a_guided_regex_matches_the_whole_text(pattern: str, candidates: list[str]) -> None:
    made, wanted = matcher(regex_body(pattern, param="guided_regex")), re.compile(pattern, re.ASCII)
    for text in candidates:
        assert accepted_by(made, text) == bool(wanted.fullmatch(text)), (pattern, text)


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"(?i)ab", ["AB", "ab"], ["a"]),
        (r"(?s)a.b", ["a\nb"], ["ab"]),
        (r"a.b", ["a-b"], ["a\nb", "a\rb", "a\u2028b"]),
        (r"\p{Lu}\P{L}", ["É1"], ["é1", "ÉÉ"]),
        (r"\ud83d\ude00", ["😀"], ["\u00e9"]),
        (r"[\u{1F600}-\u{1F64F}]", ["😀"], ["a"]),
        (r"\W\D\S", ["--a", "-é-"], ["é--", "-1-", "-- "]),
        (r"\Aa\Z", ["a"], ["ba"]),
        (r"(?:^a$)|(?:^b$)", ["a", "b"], ["ab"]),
        (r"", [""], ["a"]),
        (r"/\//", ["///"], ["//"]),
        (r"[\b]\0", ["\b\0"], ["b0"]),
        (r"(?P<x>a)(?<y>b)", ["ab"], ["a"]),
        (r"a{0}b{2,}", ["bb", "bbb"], ["abb", "b"]),
    ],
)
def test_dialects(pattern: str, good: list[str], bad: list[str]) -> None:
    body = regex_body(pattern, param="guided_regex")
    assert [text for text in good if not accepts(body, text)] == []
    assert [text for text in bad if accepts(body, text)] == []


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(?=a)", "lookahead"),
        ("(?<!a)b", "lookbehind"),
        (r"(a)\1", "back-reference"),
        (r"(?P<x>a)(?P=x)", "unsupported kind"),
        (r"\bword\b", "word boundary"),
        ("a^b", "in its middle"),
        ("(a|^)*", "repeats ^ or $"),
        ("a++", "possessive"),
        ("a**", "repeats a repetition"),
        ("*a", "nothing to repeat"),
        ("a{3,2}", "3 to 2"),
        ("a{,2}", "{0,n}"),
        ("a{1000000}", "more than"),
        ("(a", "unmatched ("),
        ("a)", "unmatched )"),
        ("[a", "unmatched ["),
        ("[]a]", "empty class"),
        ("[z-a]", "lower"),
        (r"[\d-z]", "range"),
        ("[[:alpha:]]", "[:"),
        (r"\q", "escape"),
        ("a\\", "escape"),
        (r"\ud800", "no character"),
        ("(?x)a", "flag"),
        ("(?m:a)", "flags"),
        ("\ud800", "surrogate"),
        ("(" * 10_000, "longer than"),
        ("(" * 4_000 + ")" * 4_000, "deeper"),
        ("(^a|b)" * 12, "too many"),
    ],
)
def test_refused_by_name(pattern: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        regex_body(pattern, param="guided_regex")
    assert words in caught.value.message
    assert (caught.value.error_code, caught.value.param) == ("invalid_grammar", "guided_regex")


def test_choices_are_exact_texts() -> None:
    choices = ["yes", "yes, but", 'a "b"\n', "/é/", "a\\u0062"]
    body = choice_body(choices, param="guided_choice")
    assert all(accepts(body, text) for text in choices)
    assert not any(accepts(body, text) for text in ["yes,", "", "ab", "YES"])


@pytest.mark.parametrize(
    "choices", [[], [""], ["\ud800"], [str(i) for i in range(3000)], ["x" * 200_000]]
)
def test_choices_that_are_refused(choices: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        choice_body(choices, param="guided_choice")
    assert caught.value.error_code == "invalid_grammar"
