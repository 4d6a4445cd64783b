"""JSON Schemas at random, by a seed: keywords combined as no generator does."""

from __future__ import annotations

import random
from typing import Any

_NAMES = ["a", "b", "kind", "é"]
_TYPES = ["null", "boolean", "integer", "number", "string", "array", "object"]


def schema(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    made = _schema(rng, 3)
    made = made if isinstance(made, dict) else {"allOf": [made]}
    made["$defs"] = {name: _schema(rng, 2) for name in ("P", "Q")}
    return made


def _schema(rng: random.Random, depth: int) -> Any:
    if rng.random() < 0.05:
        return rng.random() < 0.7
    made: dict[str, Any] = {}
    if rng.random() < 0.7:
        types = rng.sample(_TYPES, rng.choice([1, 1, 1, 2]))
        made["type"] = types[0] if len(types) == 1 else types
    keywords = list(_KEYWORDS)
    rng.shuffle(keywords)
    for keyword in keywords[: rng.randint(0, 5)]:
        value = _KEYWORDS[keyword](rng, depth - 1)
        if value is not None:
            made[keyword] = value
    return made


def _nested(rng: random.Random, depth: int) -> Any:
    return _schema(rng, depth) if depth > 0 else None


def _many(rng: random.Random, depth: int) -> Any:
    return [_schema(rng, depth) for _ in range(rng.randint(1, 3))] if depth > 0 else None


def _named(rng: random.Random, depth: int) -> Any:
    if depth <= 0:
        return None
    return {name: _schema(rng, depth) for name in rng.sample(_NAMES, rng.randint(1, 3))}


def _value(rng: random.Random) -> Any:
    return rng.choice([None, True, 0, 1, -2.5, 7, "", "a", "kind", [], [1], {}, {"a": 1}])


_KEYWORDS: dict[str, Any] = {
    "enum": lambda rng, _: [_value(rng) for _ in range(rng.randint(1, 5))],
    "const": lambda rng, _: _value(rng),
    "minimum": lambda rng, _: rng.choice([-3, 0, 0.5, 2]),
    "maximum": lambda rng, _: rng.choice([1, 2.5, 10]),
    "exclusiveMinimum": lambda rng, _: rng.choice([-1, 0, 1.5]),
    "multipleOf": lambda rng, _: rng.choice([1, 2, 0.5]),
    "minLength": lambda rng, _: rng.randint(0, 3),
    "maxLength": lambda rng, _: rng.randint(0, 6),
    "pattern": lambda rng, _: rng.choice(["^a", "b$", "^[ab]*$", "k|n", r"^\w+$"]),
    "format": lambda rng, _: rng.choice(["date", "ipv4", "no such format"]),
    "minItems": lambda rng, _: rng.randint(0, 2),
    "maxItems": lambda rng, _: rng.randint(0, 3),
    "items": _nested,
    "prefixItems": _many,
    "properties": _named,
    "required": lambda rng, _: rng.sample(_NAMES, rng.randint(1, 2)),
    "additionalProperties": _nested,
    "patternProperties": lambda rng, depth: (
        {rng.choice(["^a", "k"]): _schema(rng, depth)} if depth > 0 else None
    ),
    "propertyNames": lambda rng, _: rng.choice(
        [{"enum": ["a", "b"]}, {"pattern": "^a"}, {"maxLength": 2}]
    ),
    "minProperties": lambda rng, _: rng.randint(0, 2),
    "maxProperties": lambda rng, _: rng.randint(0, 3),
    "anyOf": _many,
    "oneOf": _many,
    "allOf": _many,
    "$ref": lambda rng, _: rng.choice(["#/$defs/P", "#/$defs/Q", "#"]),
}
