"""A client's JSON Schema, checked and rewritten into what llguidance enforces exactly.

What comes out allows only values that the schema allows. It may allow fewer where that harms
nobody: an object that lists its properties has no others unless it says so, whole numbers fit
64 bits, a format is read strictly, keys come in the order of the schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from server.core.errors import InvalidRequest

from . import numbers
from .containers import Node, Schema, array, count, object_
from .disjoint import Disjoint, is_of, same
from .endings import circular, depth_of_references, without_endless
from .formats import FORMATS
from .keywords import APPLICATORS, IMPLIED_TYPES, REFUSED, TYPES, constrains
from .references import References
from .regex import RegexError, translate

MAX_NODES = 20_000
MAX_DEPTH = 100
MAX_REFERENCE_DEPTH = 600
MAX_VALUES = 5_000
MAX_LENGTH = 1_000_000

_SOMETIMES_LEFT_OUT = {
    *REFUSED,
    *("oneOf", "pattern", "patternProperties", "propertyNames", "minProperties", "maxProperties"),
}
_UNWRITTEN = frozenset(map(chr, [*range(32), 127])) - frozenset("\b\f\n\r\t")


def rewritten(schema: Mapping[str, Any] | bool, *, param: str, strict: bool = True) -> Node:
    """The schema with its definitions. Raises InvalidRequest that names the keyword and its
    place. Without `strict`, keywords that cannot be enforced are left out instead."""
    return _Rewriter(schema, param, strict).run()


def left_out(schema: Mapping[str, Any] | bool, *, param: str) -> list[str]:
    """The keywords that are not enforced where `rewritten` is not strict."""
    words = (leaf for leaf in _leaves([schema]) if isinstance(leaf, str))
    if _SOMETIMES_LEFT_OUT.isdisjoint(words):
        return []
    rewriter = _Rewriter(schema, param, strict=False)
    rewriter.run()
    return sorted(rewriter.left_out)


class _Rewriter:
    def __init__(self, schema: Mapping[str, Any] | bool, param: str, strict: bool) -> None:
        self.left_out: set[str] = set()
        self._strict = strict
        self._param = param
        self._values = 0
        self._check_depth(schema)
        self._references = References(schema, self.refuse)
        self._disjoint = Disjoint(self._references)
        self._names: dict[tuple[str, bool], str] = {}
        self._waiting: list[tuple[str, bool]] = []

    def run(self) -> Node:
        root = self.schema(self._references.root, "#", closed=True)
        definitions: dict[str, Schema] = {}
        while self._waiting:
            place, closed = self._waiting.pop()
            name = self._names[place, closed]
            definitions[name] = self.schema(self._references.at(place), place, closed=closed)
        if circular(definitions):
            self.refuse("#", "a '$ref' leads back to itself without a property or item between")
        ended = without_endless(root, definitions)
        if ended is None:
            self.refuse("#", "no finite value fits this schema")
        root, definitions = ended
        node = {"allOf": [root]} if isinstance(root, bool) else root
        self._check_depth({**node, "$defs": definitions})
        # llguidance follows references on its stack.
        if depth_of_references(root, definitions) > MAX_REFERENCE_DEPTH:
            self.refuse("#", "the chain of '$ref' is too long")
        return {**node, "$defs": definitions} if definitions else node

    def refuse(self, place: str, why: str) -> NoReturn:
        raise InvalidRequest(
            f"Invalid JSON Schema at {place[:300]}: {why}.",
            param=self._param,
            code="invalid_json_schema",
        )

    def leave_out(self, keyword: str, place: str, why: str) -> None:
        if self._strict:
            self.refuse(place, why)
        self.left_out.add(keyword)

    def _check_depth(self, schema: Any) -> None:
        """Without recursion, so that no depth of nesting harms."""
        nodes, depth = 0, 0
        layer = [schema]
        while layer:
            nodes, depth = nodes + len(layer), depth + 1
            if nodes > MAX_NODES:
                self.refuse("#", f"it has more than {MAX_NODES} parts")
            if depth > MAX_DEPTH:
                self.refuse("#", f"it nests deeper than {MAX_DEPTH} levels")
            layer = [child for node in layer for child in _children(node)]

    def schema(self, node: Any, place: str, *, closed: bool) -> Schema:
        """`closed`: nothing else is required of the same value, so that an object may be limited
        to the properties it lists."""
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            self.refuse(place, f"a schema must be an object or a boolean, not {_shown(node)}")
        kept = self._constraining(node, place)
        applicators = [key for key in kept if key in APPLICATORS]
        own = {key: value for key, value in kept.items() if key not in APPLICATORS}
        closed = closed and len(applicators) + bool(own) < 2
        parts = [self._applied(key, kept[key], place, closed=closed) for key in applicators]
        if own:
            described = self._described(own, place, closed=closed)
            # Properties come in the order of the text.
            leads = next((key for key in kept if key != "type"), "type") not in APPLICATORS
            parts.insert(0 if leads else len(parts), described)
        return self._all(parts, place)

    def _constraining(self, node: Node, place: str) -> Node:
        kept = {}
        for key, value in node.items():
            if key in REFUSED and constrains(key, node):
                why = f"the keyword '{key}' is not supported; {REFUSED[key]}"
                self.leave_out(key, place, why)
            elif key in IMPLIED_TYPES or key in APPLICATORS or key in ("type", "enum", "const"):
                kept[key] = value
        return kept

    def _all(self, parts: list[Schema], place: str) -> Schema:
        if False in parts:
            return False
        kept = [part for part in parts if isinstance(part, dict)]
        if len(kept) < 2:
            return kept[0] if kept else True
        if any("patternProperties" in part for part in kept):
            self.refuse(
                place,
                "'patternProperties' and 'propertyNames' cannot be combined with 'allOf', 'anyOf', "
                "'oneOf' or '$ref'; put them into one schema",
            )
        return {"allOf": kept}

    def _applied(self, key: str, value: Any, place: str, *, closed: bool) -> Schema:
        if key == "$ref":
            return self._referred(self._references.resolve(value, place), closed)
        where = f"{place}/{key}"
        if not isinstance(value, list) or not value:
            self.refuse(where, f"'{key}' must be a list of schemas that is not empty")
        closed = closed and (key != "allOf" or len(value) == 1)
        options = [self.schema(item, f"{where}/{i}", closed=closed) for i, item in enumerate(value)]
        if key == "allOf":
            return self._all(options, place)
        if key == "oneOf" and not self._disjoint.all_of(value, place):
            self.leave_out(
                key,
                where,
                "'oneOf' needs alternatives of which never two fit, such as objects with a "
                "required property that has another 'const' in each; use 'anyOf'",
            )
        kept = [option for option in options if option is not False]
        if True in kept:
            return True
        if len(kept) < 2:
            return kept[0] if kept else False
        return {"anyOf": kept}

    def _referred(self, target: str, closed: bool) -> Schema:
        key = (target, closed)
        if key not in self._names:
            self._names[key] = f"d{len(self._names)}"
            self._waiting.append(key)
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def follow(self, node: Any, place: str) -> Any:
        for _ in range(MAX_DEPTH):
            if not isinstance(node, dict) or "$ref" not in node:
                break
            node = self._references.at(self._references.resolve(node["$ref"], place))
        return node

    def _described(self, node: Node, place: str, *, closed: bool) -> Schema:
        """The keywords that speak of a value by themselves, each of the types it applies to."""
        types = self._types(node, place)
        found: Node = {}
        others: list[Schema] = []
        if {"integer", "number"} & set(types):
            numeric = self._numbers(node, place, types)
            types, found = _joined(types, found, numeric, ("integer", "number"))
        if "string" in types:
            texts, others = self._texts(node, place)
            types, found = _joined(types, found, texts, ("string",))
        if "array" in types:
            types, found = _joined(types, found, array(node, place, self), ("array",))
        if "object" in types:
            members = object_(node, place, self, closed=closed)
            types, found = _joined(types, found, members, ("object",))
        if "enum" in node or "const" in node:
            values = self._constants(node, place, types)
            if not values:
                return False
            types, found = (types, {**found, "enum": values}) if found else ([], {"enum": values})
        if not types and "enum" not in found:
            return False
        if types and set(types) != set(TYPES):
            found = {"type": types[0] if len(types) == 1 else types, **found}
        return self._all([found or True, *others], place)

    def _types(self, node: Node, place: str) -> list[str]:
        value = node.get("type")
        if value is None:
            implied = dict.fromkeys(IMPLIED_TYPES[key] for key in node if key in IMPLIED_TYPES)
            return list(TYPES) if {"enum", "const"} & set(node) else list(implied)
        types = [value] if isinstance(value, str) else value
        if not isinstance(types, list) or not types:
            self.refuse(f"{place}/type", "'type' must be a name or a list of names")
        for name in types:
            if name not in TYPES:
                known = ", ".join(TYPES)
                self.refuse(f"{place}/type", f"'type' is {_shown(name)}, which is none of {known}")
        return list(dict.fromkeys(types))

    def _constants(self, node: Node, place: str, types: list[str]) -> list[Any]:
        values = node.get("enum", [node.get("const")])
        if not isinstance(values, list) or not values:
            self.refuse(f"{place}/enum", "'enum' must be a list that is not empty")
        if "enum" in node and "const" in node:
            values = [value for value in values if same(value, node["const"])]
        self._values += len(values)
        if self._values > MAX_VALUES:
            self.refuse(f"{place}/enum", f"there are more than {MAX_VALUES} values in all")
        for value in _leaves(values):
            if isinstance(value, str):
                self.text(value, place)
            elif isinstance(value, int | float) and not numbers.is_exact(value):
                self.refuse(
                    place, f"the number {_shown(value)} cannot be kept exactly; use a string"
                )
        return [value for value in values if is_of(value, types)]

    def _numbers(self, node: Node, place: str, types: list[str]) -> Schema:
        for key in ("minimum", "maximum", "multipleOf", "exclusiveMinimum", "exclusiveMaximum"):
            if key in node and not numbers.is_bound(key, node[key]):
                self.refuse(
                    f"{place}/{key}", f"'{key}' is {_shown(node[key])}, which cannot be enforced"
                )
        whole = "number" not in types and not {"enum", "const"} & set(node)
        found = numbers.whole_bounds(node) if whole else numbers.bounds(node)
        return False if found is None else found

    def _texts(self, node: Node, place: str) -> tuple[Schema, list[Schema]]:
        """With the schemas that say what one `pattern` cannot."""
        found: Node = {}
        for key in ("minLength", "maxLength"):
            if key in node:
                found[key] = min(count(node, key, place, self), MAX_LENGTH + 1)
        if found.get("minLength", 0) > min(MAX_LENGTH, found.get("maxLength", MAX_LENGTH)):
            if found["minLength"] > MAX_LENGTH:
                self.refuse(f"{place}/minLength", f"'minLength' is more than {MAX_LENGTH}")
            return False, []
        patterns = [self.pattern(node["pattern"], f"{place}/pattern")] if "pattern" in node else []
        if "format" in node and not isinstance(node["format"], str):
            self.refuse(f"{place}/format", "'format' must be a name")
        if node.get("format") in FORMATS:
            patterns.append(f"^(?:{FORMATS[node['format']]})$")
        patterns = [pattern for pattern in patterns if pattern]
        if patterns:
            found["pattern"] = patterns[0]
        return found, [{"type": "string", "pattern": pattern} for pattern in patterns[1:]]

    def pattern(self, pattern: Any, place: str) -> str:
        """Of whole texts; empty where it cannot be enforced and need not be."""
        if not isinstance(pattern, str):
            self.refuse(place, "a pattern must be a string")
        try:
            return f"^(?:{translate(pattern, search=True)})$"
        except RegexError as error:
            self.leave_out("pattern", place, f"the pattern {error}")
            return ""

    def text(self, text: str, place: str) -> str:
        if any("\ud800" <= char <= "\udfff" for char in text):
            self.refuse(place, "a text holds half of a surrogate pair")
        if _UNWRITTEN.intersection(text):
            self.refuse(place, "a text holds a control character other than \\b \\f \\n \\r \\t")
        return text


def _joined(
    types: list[str], found: Node, more: Schema, group: tuple[str, ...]
) -> tuple[list[str], Node]:
    """With what describes a group of types; without these where nothing of them fits."""
    if isinstance(more, dict):
        return types, {**found, **more}
    return [name for name in types if name not in group], found


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, Mapping):
        return node.values()
    return node if isinstance(node, list | tuple) else ()


def _leaves(values: list[Any]) -> Iterable[Any]:
    waiting: list[Any] = list(values)
    while waiting:
        value = waiting.pop()
        waiting.extend(_children(value))
        if isinstance(value, Mapping):
            waiting.extend(value)
        yield value


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) < 60 else f"{text[:57]}..."
