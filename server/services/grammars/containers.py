"""Arrays and objects of a JSON Schema, as keywords llguidance enforces."""

from __future__ import annotations

import math
from typing import Any, NoReturn, Protocol

from .formats import FORMATS

MAX_ITEMS = 4_096

Node = dict[str, Any]
Schema = bool | Node


class Walk(Protocol):
    """What the description of a part needs of the whole."""

    def schema(self, node: Any, place: str, *, closed: bool) -> Schema: ...

    def pattern(self, pattern: Any, place: str) -> str: ...

    def follow(self, node: Any, place: str) -> Any:
        """What a schema that is only a reference refers to."""
        ...

    def text(self, text: str, place: str) -> str: ...

    def refuse(self, place: str, why: str) -> NoReturn: ...

    def leave_out(self, keyword: str, place: str, why: str) -> None:
        """Of a keyword that cannot be enforced: refuses it where all must be."""
        ...


def count(node: Node, key: str, place: str, walk: Walk) -> int:
    value = node[key]
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        walk.refuse(f"{place}/{key}", f"'{key}' must be a whole number from 0")
    return min(value, 2**31)


def array(node: Node, place: str, walk: Walk) -> Schema:
    described: Node = {}
    prefix, rest = ("prefixItems", "items")
    if isinstance(node.get("items"), list):
        prefix, rest = ("items", "additionalItems")
    if prefix in node:
        if not isinstance(node[prefix], list):
            walk.refuse(f"{place}/{prefix}", f"'{prefix}' must be a list of schemas")
        described["prefixItems"] = [
            walk.schema(item, f"{place}/{prefix}/{i}", closed=True)
            for i, item in enumerate(node[prefix])
        ]
    if rest in node:
        described["items"] = walk.schema(node[rest], f"{place}/{rest}", closed=True)
    for key in ("minItems", "maxItems"):
        if key in node:
            described[key] = count(node, key, place, walk)
    least, most = described.get("minItems", 0), described.get("maxItems", MAX_ITEMS)
    if least > MAX_ITEMS:
        walk.refuse(f"{place}/minItems", f"'minItems' is more than {MAX_ITEMS}")
    if "maxItems" in described:
        described["maxItems"] = min(most, MAX_ITEMS)
    return described if least <= most else False


def object_(node: Node, place: str, walk: Walk, *, closed: bool) -> Schema:
    described = _members(node, place, walk)
    required = _required(node, place, walk)
    if "additionalProperties" in node:
        where = f"{place}/additionalProperties"
        rest = node["additionalProperties"]
        described["additionalProperties"] = walk.schema(rest, where, closed=True)
    elif closed and described.get("properties") and "patternProperties" not in described:
        # The names which are only required are as good as listed.
        for name in required:
            described["properties"].setdefault(name, True)
        described["additionalProperties"] = False
    if "propertyNames" in node:
        described = _named(described, node["propertyNames"], f"{place}/propertyNames", walk)
    if required:
        described["required"] = required
    if any(_member(described, name) is False for name in required):
        return False
    return _counted(described, node, place, walk)


def _members(node: Node, place: str, walk: Walk) -> Node:
    described: Node = {}
    for key in ("properties", "patternProperties"):
        if key in node and not isinstance(node[key], dict):
            walk.refuse(f"{place}/{key}", f"'{key}' must be an object of schemas")
    if "properties" in node:
        described["properties"] = {
            walk.text(name, place): walk.schema(
                schema, f"{place}/properties/{_escaped(name)}", closed=True
            )
            for name, schema in node["properties"].items()
        }
    if node.get("patternProperties"):
        where = f"{place}/patternProperties"
        if described.get("properties"):
            walk.refuse(
                where, "'patternProperties' beside 'properties' is not supported; list the names"
            )
        translated = {
            walk.pattern(pattern, where): walk.schema(
                schema, f"{where}/{_escaped(pattern)}", closed=True
            )
            for pattern, schema in node["patternProperties"].items()
        }
        described["patternProperties"] = {
            pattern: schema for pattern, schema in translated.items() if pattern
        }
    return described


def _required(node: Node, place: str, walk: Walk) -> list[str]:
    names = node.get("required", [])
    # Draft 3 wrote `required: true` into the property itself.
    if isinstance(names, bool):
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        walk.refuse(f"{place}/required", "'required' must be a list of names")
    return [walk.text(name, place) for name in dict.fromkeys(names)]


def _member(described: Node, name: str) -> Schema:
    members: dict[str, Schema] = described.get("properties", {})
    if name in members:
        return members[name]
    if "patternProperties" in described:
        return True
    rest: Schema = described.get("additionalProperties", True)
    return rest


def _named(described: Node, names: Any, place: str, walk: Walk) -> Node:
    """With `propertyNames` turned into the properties there may be."""
    names = walk.follow(names, place)
    if names is False:
        return {"properties": {}, "additionalProperties": False}
    if not isinstance(names, dict):
        return described
    rest = described.get("additionalProperties", True)
    members: dict[str, Schema] = described.get("properties", {})
    if "patternProperties" in described:
        return _unsupported_names(described, place, walk)
    allowed = names.get("enum", [names["const"]] if "const" in names else None)
    if isinstance(allowed, list):
        known = [name for name in allowed if isinstance(name, str)]
        return {
            "properties": {walk.text(name, place): members.get(name, rest) for name in known},
            "additionalProperties": False,
        }
    pattern = _name_pattern(names, place, walk)
    if pattern is None:
        return described
    if members or not pattern:
        return _unsupported_names(described, place, walk)
    return {"patternProperties": {pattern: rest}, "additionalProperties": False}


def _name_pattern(names: Node, place: str, walk: Walk) -> str | None:
    """None where every name fits, empty where it takes more than one pattern."""
    lengths = [key for key in ("minLength", "maxLength") if key in names]
    enforced = names.get("format") in FORMATS
    others = {"not", "if", "anyOf", "oneOf", "allOf", "$ref"} & set(names)
    if not lengths and "pattern" not in names and not enforced and not others:
        return None
    if others or bool(lengths) + ("pattern" in names) + enforced > 1:
        return ""
    if lengths:
        least = count(names, "minLength", place, walk) if "minLength" in names else 0
        most = count(names, "maxLength", place, walk) if "maxLength" in names else ""
        return f"^(?s:.{{{least},{most}}})$"
    if enforced:
        return f"^(?:{FORMATS[names['format']]})$"
    return walk.pattern(names["pattern"], place)


def _unsupported_names(described: Node, place: str, walk: Walk) -> Node:
    walk.leave_out(
        "propertyNames",
        place,
        "this use of the keyword 'propertyNames' is not supported; give an 'enum' of names, or "
        "one 'pattern' in an object without other properties",
    )
    return described


def _counted(described: Node, node: Node, place: str, walk: Walk) -> Schema:
    least = count(node, "minProperties", place, walk) if "minProperties" in node else 0
    most = count(node, "maxProperties", place, walk) if "maxProperties" in node else None
    members: dict[str, Schema] = described.get("properties", {})
    required = len(described.get("required", []))
    fixed = described.get("additionalProperties") is False and "patternProperties" not in described
    possible = sum(schema is not False for schema in members.values()) if fixed else math.inf
    if most is not None and most >= possible:
        most = None
    if max(least, required) > min(possible, math.inf if most is None else most):
        return False
    if least <= required:
        least = 0
    if not least and most is None:
        return described
    optional = any(name not in described.get("required", ()) for name in members)
    if optional and (required or not fixed or least > 1 or (most or 1) > 1):
        return _uncounted(described, node, place, walk, "when there are optional properties")
    if least > required + 1 and not fixed:
        when = "above the number of required ones plus 1"
        return _uncounted(described, node, place, walk, when)
    described = {**described}
    if most == 0:
        return {"properties": {}, "additionalProperties": False}
    if least:
        described["minProperties"] = least
    if most is not None:
        described["maxProperties"] = most
    return described


def _uncounted(described: Node, node: Node, place: str, walk: Walk, when: str) -> Node:
    why = f"the keywords 'minProperties' and 'maxProperties' are not supported {when}"
    for key in ("minProperties", "maxProperties"):
        if key in node:
            walk.leave_out(key, place, why)
    return described


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
