"""Where `$ref` points inside one schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from urllib.parse import unquote

Refuse = Callable[[str, str], NoReturn]


class References:
    """Places are JSON pointers as fragments: `#`, `#/$defs/Node`."""

    def __init__(self, root: Mapping[str, Any] | bool, refuse: Refuse) -> None:
        self.root: Any = root
        self._refuse = refuse
        self._named: dict[str, str] = {}
        self._collect_names()

    def at(self, place: str) -> Any:
        """The node at a place; KeyError where there is none."""
        node = self.root
        for step in place.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and step.isascii() and step.isdigit() and len(step) < 6:
                if int(step) >= len(node):
                    raise KeyError(place)
                node = node[int(step)]
            elif isinstance(node, dict) and step in node:
                node = node[step]
            else:
                raise KeyError(place)
        return node

    def resolve(self, reference: Any, place: str) -> str:
        """The place a `$ref` that stands at `place` points to."""
        if not isinstance(reference, str):
            self._refuse(f"{place}/$ref", "'$ref' must be a string")
        target = self._target(reference)
        if target is None:
            self._refuse(
                f"{place}/$ref",
                f"'$ref' {reference[:200]!r} is not within this schema; copy what it names into "
                "'$defs'",
            )
        try:
            node = self.at(target)
        except KeyError:
            self._refuse(f"{place}/$ref", f"'$ref' {reference[:200]!r} points nowhere")
        if not isinstance(node, dict | bool):
            self._refuse(f"{place}/$ref", f"'$ref' {reference[:200]!r} points to no schema")
        return target

    def _target(self, reference: str) -> str | None:
        base, _, fragment = reference.partition("#")
        start = self._named.get(base) if base else "#"
        if start is None:
            return None
        fragment = unquote(fragment)
        if not fragment:
            return start
        if fragment.startswith("/"):
            return start + fragment
        return self._named.get(f"#{fragment}")

    def _collect_names(self) -> None:
        waiting: list[tuple[Any, str]] = [(self.root, "#")]
        while waiting:
            node, place = waiting.pop()
            if isinstance(node, dict):
                self._name(node, place)
                waiting.extend(
                    (child, f"{place}/{str(key).replace('~', '~0').replace('/', '~1')}")
                    for key, child in node.items()
                    if key not in ("enum", "const", "default", "examples")
                )
            elif isinstance(node, list):
                waiting.extend((child, f"{place}/{i}") for i, child in enumerate(node))

    def _name(self, node: dict[str, Any], place: str) -> None:
        if isinstance(node.get("$id"), str):
            self._named.setdefault(node["$id"].removesuffix("#"), place)
        if isinstance(node.get("$anchor"), str):
            self._named.setdefault(f"#{node['$anchor']}", place)
