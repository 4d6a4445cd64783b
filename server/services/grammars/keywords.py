"""What is done with each keyword of JSON Schema, and why some are refused."""

from __future__ import annotations

from typing import Any

APPLICATORS = ("$ref", "anyOf", "oneOf", "allOf")

IMPLIED_TYPES = {
    "properties": "object",
    "patternProperties": "object",
    "additionalProperties": "object",
    "propertyNames": "object",
    "required": "object",
    "minProperties": "object",
    "maxProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "additionalItems": "array",
    "minItems": "array",
    "maxItems": "array",
    "minLength": "string",
    "maxLength": "string",
    "pattern": "string",
    "format": "string",
    "minimum": "number",
    "maximum": "number",
    "exclusiveMinimum": "number",
    "exclusiveMaximum": "number",
    "multipleOf": "number",
}
"""The keywords that are enforced on values of one type, and the type they imply."""

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

REFUSED = {
    "not": "say what is allowed instead",
    "if": "use anyOf with one schema for each case",
    "then": "use anyOf with one schema for each case",
    "else": "use anyOf with one schema for each case",
    "dependentRequired": "use anyOf with one schema for each case",
    "dependentSchemas": "use anyOf with one schema for each case",
    "dependencies": "use anyOf with one schema for each case",
    "uniqueItems": "leave it out and drop duplicates when you read the answer",
    "contains": "describe every item with items or prefixItems",
    "minContains": "describe every item with items or prefixItems",
    "maxContains": "describe every item with items or prefixItems",
    "unevaluatedItems": "use items: false after prefixItems",
    "unevaluatedProperties": "use additionalProperties in the schema that lists the properties",
    "$dynamicRef": "use $ref",
    "$recursiveRef": "use $ref",
    "extends": "use allOf",
    "disallow": "say what is allowed instead",
    "divisibleBy": "use multipleOf",
}
"""Keywords that constrain and cannot be enforced, with what to write instead."""


def constrains(keyword: str, node: dict[str, Any]) -> bool:
    """Whether a refused keyword has a value that rules anything out where it stands."""
    value = node[keyword]
    match keyword:
        case "uniqueItems":
            return value is not False and node.get("maxItems") not in (0, 1)
        case "unevaluatedItems" | "unevaluatedProperties":
            return value not in (True, {})
        case "then" | "else":
            return "if" in node
        case "if":
            return "then" in node or "else" in node
        case "minContains" | "maxContains":
            return "contains" in node
        case "dependentRequired" | "dependentSchemas" | "dependencies":
            return bool(value)
    return True
