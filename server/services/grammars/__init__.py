"""What an answer must be, as Lark of llguidance: JSON Schema, regular expressions, choices, GBNF.

A *body fragment* defines the rule `body`; its other names start with `body_` or `BODY_`. What
cannot be enforced is refused: InvalidRequest with code `invalid_json_schema` or `invalid_grammar`.
"""

from .bodies import choice_body, regex_body
from .gbnf import gbnf_body
from .json_schema import json_body, json_schema_atom, object_body
from .schema import left_out

__all__ = [
    "choice_body",
    "gbnf_body",
    "json_body",
    "json_schema_atom",
    "left_out",
    "object_body",
    "regex_body",
]
