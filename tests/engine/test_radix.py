"""The radix tree against the plain thing it replaces: a list searched from end to end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.engine.radix import RadixTree
from server.engine.slots import common_prefix

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=8)


@given(st.lists(TOKENS, max_size=20), st.data())
def test_agrees_with_a_search_of_all(stored: list[list[int]], data: st.DataObject) -> None:
    tree, known = RadixTree(), {}
    for key, tokens in enumerate(stored):
        tree.insert(tokens, key)
        known = {k: t for k, t in known.items() if t != tokens} | {key: tokens}
        if known and data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(known)))
            tree.remove(gone)
            del known[gone]
    query = data.draw(TOKENS)
    assert len(tree) == len(known)
    assert sorted(tree.prefixes(query)) == sorted(
        key for key, tokens in known.items() if tokens == query[: len(tokens)]
    )
    key, shared = tree.longest(query)
    assert shared == max((common_prefix(tokens, query) for tokens in known.values()), default=0)
    assert (key is None) == (shared == 0)
    if key is not None:
        assert common_prefix(known[key], query) == shared
