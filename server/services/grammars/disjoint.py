"""Whether two schemas can fit one value, as far as it is easily proved that they cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import permutations
from typing import Any

from .keywords import IMPLIED_TYPES, TYPES
from .references import References

MAX_STEPS = 20_000


class Disjoint:
    def __init__(self, references: References) -> None:
        self._references = references
        self._steps = 0

    def all_of(self, options: list[Any], place: str) -> bool:
        return all(self._apart(one, other, place, 8) for one, other in permutations(options, 2))

    def _apart(self, one: Any, other: Any, place: str, depth: int) -> bool:
        """Whether no value that is written for one fits the other. What is written is of the types
        that the keywords imply; what fits need not be."""
        self._steps += 1
        if depth == 0 or self._steps > MAX_STEPS:
            return False
        if one is False or other is False:
            return True
        if not isinstance(one, dict) or not isinstance(other, dict):
            return False
        return (
            self._split(one, place, lambda part: self._apart(part, other, place, depth - 1))
            or self._split(other, place, lambda part: self._apart(one, part, place, depth - 1))
            or _values_apart(one, other)
            or self._members_apart(one, other, place, depth)
        )

    def _split(self, node: dict[str, Any], place: str, apart: Callable[[Any], bool]) -> bool:
        """Whether what the node refers to is apart: one of what it must all be, or all of what it
        may be."""
        if "$ref" in node and apart(
            self._references.at(self._references.resolve(node["$ref"], place))
        ):
            return True
        parts = node.get("allOf")
        if isinstance(parts, list) and any(map(apart, parts)):
            return True
        choices = (node.get(key) for key in ("anyOf", "oneOf"))
        return any(
            isinstance(options, list) and bool(options) and all(map(apart, options))
            for options in choices
        )

    def _members_apart(
        self, one: dict[str, Any], other: dict[str, Any], place: str, depth: int
    ) -> bool:
        """A property that must be there and has no value that fits both."""
        if _written_types(one) & _types(other) != {"object"}:
            return False
        if "patternProperties" in one or "patternProperties" in other:
            return False
        return any(
            self._apart(_member(one, name), _member(other, name), place, depth - 1)
            for name in dict.fromkeys([*_names(one), *_names(other)])
        )


def _values_apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    types, other_types = _written_types(one), _types(other)
    if not types & other_types:
        return True
    values, other_values = _values(one), _values(other)
    if values is not None and other_values is not None:
        return not any(same(a, b) for a in values for b in other_values)
    if values is not None:
        return not any(is_of(value, other_types) for value in values)
    if other_values is not None:
        return not any(is_of(value, types) for value in other_values)
    return False


def is_of(value: Any, types: Iterable[str]) -> bool:
    return any(_IS[name](value) for name in types)


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_IS: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _types(node: dict[str, Any]) -> set[str]:
    value = node.get("type", list(TYPES))
    types = (
        {name for name in value if isinstance(name, str)} if isinstance(value, list) else {value}
    )
    return types | ({"integer"} if "number" in types else set())


def _written_types(node: dict[str, Any]) -> set[str]:
    implied = {IMPLIED_TYPES[key] for key in node if key in IMPLIED_TYPES}
    if "type" in node or "enum" in node or "const" in node or not implied:
        return _types(node)
    return _types({"type": list(implied)})


def _values(node: dict[str, Any]) -> list[Any] | None:
    if "const" in node:
        return [node["const"]]
    values = node.get("enum")
    return values[:200] if isinstance(values, list) and len(values) <= 200 else None


def _names(node: dict[str, Any]) -> list[str]:
    required = node.get("required")
    return (
        [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    )


def _member(node: dict[str, Any], name: str) -> Any:
    properties = node.get("properties")
    if isinstance(properties, dict) and name in properties:
        return properties[name]
    return node.get("additionalProperties", True)
