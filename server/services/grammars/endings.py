"""Schemas whose values never end, and definitions that refer to themselves without end.

Works on rewritten schemas, in which references are `#/$defs/<name>`.
"""

from __future__ import annotations

from typing import Any

Schema = bool | dict[str, Any]
Definitions = dict[str, Schema]

_PREFIX = "#/$defs/"


def circular(definitions: Definitions) -> bool:
    """Whether some value is described by itself: `{"anyOf": [{"$ref": "#"}, …]}`."""
    beside = {name: _beside(schema) for name, schema in definitions.items()}
    done: set[str] = set()
    for name in definitions:
        path: list[tuple[str, list[str]]] = [(name, list(beside[name]))]
        on_path = {name}
        while path:
            current, rest = path[-1]
            if not rest or current in done:
                path.pop()
                on_path.discard(current)
                done.add(current)
                continue
            following = rest.pop()
            if following in on_path:
                return True
            if following not in done:
                path.append((following, list(beside[following])))
                on_path.add(following)
    return False


def depth_of_references(root: Schema, definitions: Definitions) -> int:
    """How many levels deep a reader gets that follows each reference where it first meets it."""
    steps = {name: _steps(schema) for name, schema in definitions.items()}
    seen: set[str] = set()
    deepest = 0
    waiting = [(name, level) for name, level in reversed(_steps(root))]
    while waiting:
        name, level = waiting.pop()
        deepest = max(deepest, level)
        if name not in seen:
            seen.add(name)
            waiting.extend((after, level + more) for after, more in reversed(steps[name]))
    return deepest


def without_endless(root: Schema, definitions: Definitions) -> tuple[Schema, Definitions] | None:
    """Without the parts that no finite value fits; None where nothing is left."""
    ending: set[str] = set()
    while True:
        more = {
            name
            for name, schema in definitions.items()
            if name not in ending and _ends(schema, ending)
        }
        if not more:
            break
        ending |= more
    if not _ends(root, ending):
        return None
    if len(ending) == len(definitions):
        return root, definitions
    kept = {name: _cut(definitions[name], ending) for name in definitions if name in ending}
    return _cut(root, ending), kept


def _ends(schema: Schema, ending: set[str]) -> bool:
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        return schema["$ref"].removeprefix(_PREFIX) in ending
    if "anyOf" in schema:
        return any(_ends(option, ending) for option in schema["anyOf"])
    if "allOf" in schema:
        return all(_ends(part, ending) for part in schema["allOf"])
    if "enum" in schema:
        return True
    types = schema.get("type", "null")
    return any(
        _type_ends(name, schema, ending) for name in ([types] if isinstance(types, str) else types)
    )


def _type_ends(name: str, schema: dict[str, Any], ending: set[str]) -> bool:
    if name == "array":
        prefix = schema.get("prefixItems", [])
        least = schema.get("minItems", 0)
        needed = list(prefix[:least])
        if least > len(prefix):
            needed.append(schema.get("items", True))
        return all(_ends(item, ending) for item in needed)
    if name == "object":
        members = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        return all(
            _ends(members.get(name, True if schema.get("patternProperties") else rest), ending)
            for name in schema.get("required", [])
        )
    return True


def _cut(schema: Schema, ending: set[str]) -> Schema:
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        return schema if schema["$ref"].removeprefix(_PREFIX) in ending else False
    if "enum" in schema:
        return schema
    return {key: _cut_in(key, value, ending) for key, value in schema.items()}


def _cut_in(key: str, value: Any, ending: set[str]) -> Any:
    if key in ("properties", "patternProperties"):
        return {name: _cut(schema, ending) for name, schema in value.items()}
    if key in ("items", "additionalProperties"):
        return _cut(value, ending)
    if key == "anyOf":
        return [option for option in (_cut(item, ending) for item in value) if option is not False]
    if key in ("allOf", "prefixItems"):
        return [_cut(item, ending) for item in value]
    return value


def _beside(schema: Schema) -> list[str]:
    """The definitions that describe the same value as the schema."""
    found: list[str] = []
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "$ref" in node:
                found.append(node["$ref"].removeprefix(_PREFIX))
            waiting.extend([*node.get("anyOf", []), *node.get("allOf", [])])
    return found


def _steps(schema: Schema) -> list[tuple[str, int]]:
    """The references in a schema with their levels, in the order of the text."""
    found: list[tuple[str, int]] = []
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        node, level = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                found.append((node["$ref"].removeprefix(_PREFIX), level))
            elif "enum" not in node:
                waiting.extend((child, level + 1) for child in reversed(node.values()))
        elif isinstance(node, list):
            waiting.extend((child, level) for child in reversed(node))
    return found
