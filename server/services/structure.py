"""A constraint on the answer's text as a Lark fragment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from server.core.errors import InvalidRequest
from server.schemas.structure import Structure

from . import grammars


def body_of(structure: Structure) -> str:
    """The fragment that defines `body`. Raises InvalidRequest naming the field and the fault."""
    value, param = structure.value, structure.param
    match structure.kind:
        case "json":
            return grammars.json_body(value, param=param)
        case "object":
            return grammars.object_body()
        case "regex":
            return grammars.regex_body(value, param=param)
        case "choice":
            return grammars.choice_body(value, param=param)
        case "gbnf":
            return grammars.gbnf_body(value, param=param)


@contextmanager
def of_field(param: str) -> Iterator[None]:
    """What the engine refuses of a grammar names the field that it came from."""
    try:
        yield
    except InvalidRequest as error:
        if error.error_code == "invalid_grammar":
            error.param = param
        raise
