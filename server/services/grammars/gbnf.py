"""GBNF, llama.cpp's grammars, in Lark."""

from __future__ import annotations

from server.core.errors import InvalidRequest


def gbnf_body(text: str, *, param: str) -> str:
    del text
    raise InvalidRequest("GBNF is not read yet.", param=param, code="invalid_grammar")
