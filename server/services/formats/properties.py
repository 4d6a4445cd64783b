"""The parameters of a tool one by one, for families that do not write them as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from .json_text import dumps, is_json

_SAYS_NOTHING = frozenset(
    ("type", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly")
)
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_NOTHING = ("null", "None")
_DEFINITIONS = ("$defs", "definitions")


class Property(Struct, frozen=True):
    """`text`: any string is a value. `choices`: these strings are. `nullable`: null is one too."""

    name: str
    schema: Mapping[str, Any]
    required: bool
    text: bool = False
    choices: tuple[str, ...] = ()
    nullable: bool = False

    def json(self, written: str) -> str:
        """What text without quotes means, as JSON."""
        if self.nullable and written in _NOTHING:
            return "null"
        if self.text or written in self.choices:
            return dumps(written)
        return json(written)


def json(written: str) -> str:
    """JSON as it is written, Python's constants, and as a string all that is neither."""
    bare = written.strip()
    return bare if is_json(bare) else _CONSTANTS.get(bare) or dumps(written)


def properties(schema: Mapping[str, Any]) -> list[Property]:
    """The declared properties in the schema's order."""
    schema = _target(schema, schema)
    declared = schema.get("properties")
    required = schema.get("required")
    if not isinstance(declared, Mapping):
        return []
    return [
        _property(name, member, schema, isinstance(required, list) and name in required)
        for name, member in declared.items()
    ]


def _property(name: str, member: Any, root: Mapping[str, Any], required: bool) -> Property:
    if not isinstance(member, Mapping):
        return Property(name, {"not": {}} if member is False else {}, required)
    definitions = {key: root[key] for key in _DEFINITIONS if key in root}
    whole = {**member, **definitions}
    options, nullable = _without_null(_target(member, root))
    if len(options) == 1:
        only = options[0]
        choices = only.get("enum", [only["const"]] if "const" in only else None)
        if isinstance(choices, list) and choices and all(isinstance(c, str) for c in choices):
            return Property(name, whole, required, choices=tuple(choices), nullable=nullable)
        if only.get("type") == "string" and only.keys() <= _SAYS_NOTHING:
            return Property(name, whole, required, text=True, nullable=nullable)
    return Property(name, whole, required)


def _without_null(member: Mapping[str, Any]) -> tuple[Sequence[Mapping[str, Any]], bool]:
    kind, options = member.get("type"), member.get("anyOf")
    if isinstance(kind, list):
        types = [one for one in kind if one != "null"]
        return [{**member, "type": one} for one in types], "null" in kind
    if isinstance(options, list) and all(isinstance(option, Mapping) for option in options):
        rest = [option for option in options if option.get("type") != "null"]
        return rest, len(rest) < len(options)
    return [member], False


def _target(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference within the document points to, if the schema is one."""
    for _ in range(8):
        path = schema.get("$ref")
        if not isinstance(path, str) or not path.startswith("#/"):
            return schema
        found: Any = root
        for step in path[2:].split("/"):
            found = found.get(step) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            return schema
        schema = {**root, **found} if schema is root else found
    return schema
