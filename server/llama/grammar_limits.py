"""What a grammar may cost, and how one that costs more is refused."""

from __future__ import annotations

from llguidance import LLParserLimits

from server.core.errors import InvalidRequest

LIMITS = LLParserLimits(
    max_items_in_row=1000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=20_000,
    max_lexer_states=20_000,
    verbose_errors=False,
)
"""A step's fuel is burnt in about 15 ms, its items in 60 ms; a lexer state takes 1 to 2 kB. A row
of ambiguous items costs its square: 2000 take 170 ms, 1000 (some 250 optional properties) 40 ms."""

MAX_TEXT = 4 << 20
"""Bytes of one grammar."""


def first_line(error: str) -> str:
    return error.strip().partition("\n")[0][:300] or "it cannot be compiled"


def invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"The grammar is refused: {reason}.", param="grammar", code="invalid_grammar"
    )
