"""The translated grammar accepts exactly the texts which GBNF's definition accepts."""

from __future__ import annotations

from itertools import product

import hypothesis
from hypothesis import strategies as st

from server.core.errors import InvalidRequest
from server.services.grammars import gbnf_body
from server.services.grammars.gbnf_reader import read

from .acceptance import accepted_by, matcher
from .gbnf_reference import Reference

ALPHABET = "abc"
TEXTS = ["".join(chars) for n in range(5) for chars in product(ALPHABET, repeat=n)]

atoms = st.sampled_from(
    ['"a"', '"b"', '"ab"', '"abc"', '"ba"', "[ab]", "[^a]", "[a-c]", '""', "root", "x", "y", "y"]
)
counts = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,2}", "{2,}"])


def expressions(depth: int) -> st.SearchStrategy[str]:
    inner = atoms if depth == 0 else st.one_of(atoms, expressions(depth - 1).map("({})".format))
    item = st.builds("{}{}".format, inner, counts)
    sequence = st.lists(item, min_size=1, max_size=3).map(" ".join)
    return st.lists(sequence, min_size=1, max_size=3).map(" | ".join)


@hypothesis.settings(max_examples=60)
@hypothesis.given(expressions(1), expressions(1), expressions(1))
def test_random_grammars_over_three_letters(root: str, x: str, y: str) -> None:
    text = f"root ::= {root}\nx ::= {x}\ny ::= {y}"
    try:
        body = gbnf_body(text, param="grammar")
    except InvalidRequest as error:
        assert "itself" in error.message
        hypothesis.reject()
    reference, made = Reference(read(text)), matcher(body)
    wrong = [t for t in TEXTS if accepted_by(made, t) != reference.accepts(t)]
    assert not wrong, f"{wrong[:5]}\n{text}\n{body}"
