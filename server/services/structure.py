"""A constraint on the answer's text as a Lark fragment."""

from __future__ import annotations

from server.schemas.structure import Structure

from . import grammars


def left_out(structure: Structure) -> list[str]:
    """What of it is not enforced, by field and keyword."""
    if structure.kind != "json" or structure.strict:
        return []
    keywords = grammars.left_out(structure.value, param=structure.param)
    return [f"{structure.param}.{keyword}" for keyword in keywords]


def body_of(structure: Structure) -> str:
    """The fragment that defines `body`. Raises InvalidRequest naming the field and the fault."""
    value, param = structure.value, structure.param
    match structure.kind:
        case "json":
            return grammars.json_body(value, param=param, strict=structure.strict)
        case "object":
            return grammars.object_body()
        case "regex":
            return grammars.regex_body(value, param=param)
        case "choice":
            return grammars.choice_body(value, param=param)
        case "gbnf":
            return grammars.gbnf_body(value, param=param)
