"""Bounds of numbers, as llguidance enforces them without loss."""

from __future__ import annotations

import math
from typing import Any

BOUND = 2**63 - 1024
"""The largest whole number that llguidance holds exactly as a bound and that fits 64 bits."""


def is_exact(value: int | float) -> bool:
    if isinstance(value, bool):
        return True
    if not math.isfinite(value) or abs(value) > BOUND:
        return False
    if isinstance(value, float):
        return str(value) != "-0.0" and abs(value) < 2**53
    return int(float(value)) == value


def is_bound(keyword: str, value: Any) -> bool:
    if isinstance(value, bool):
        return keyword.startswith("exclusive")
    if not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return keyword != "multipleOf" or (1e-9 <= value <= 2**31)


def whole_bounds(node: dict[str, Any]) -> dict[str, Any] | None:
    """For integers, always within 64 bits; None where none fits."""
    low, high = -BOUND, BOUND
    for limit, exclusive in _limits(node, "minimum", "exclusiveMinimum"):
        low = max(low, math.floor(limit) + 1 if exclusive else math.ceil(limit))
    for limit, exclusive in _limits(node, "maximum", "exclusiveMaximum"):
        high = min(high, math.ceil(limit) - 1 if exclusive else math.floor(limit))
    low, high = _inwards(low, 1), _inwards(high, -1)
    if low > high:
        return None
    found: dict[str, Any] = {"minimum": low, "maximum": high}
    step = node.get("multipleOf")
    if step is not None:
        if step == int(step) and -(-low // int(step)) * int(step) > high:
            return None
        found["multipleOf"] = step
    return found


def bounds(node: dict[str, Any]) -> dict[str, Any] | None:
    """For any number; None where none fits."""
    found: dict[str, Any] = {}
    for low, key in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        sign = 1 if low == "minimum" else -1
        limits = sorted(_limits(node, low, key), key=lambda limit: (limit[0] * sign, limit[1]))
        if limits:
            limit, exclusive = limits[-1]
            if limit * sign > BOUND:
                return None
            limit = max(-BOUND, min(BOUND, limit))
            found[key if exclusive else low] = (
                _inwards(limit, sign) if isinstance(limit, int) else limit
            )
    lowest = found.get("minimum", found.get("exclusiveMinimum"))
    highest = found.get("maximum", found.get("exclusiveMaximum"))
    if lowest is not None and highest is not None:
        open_end = "exclusiveMinimum" in found or "exclusiveMaximum" in found
        if lowest > highest or (lowest == highest and open_end):
            return None
    if "multipleOf" in node:
        found["multipleOf"] = node["multipleOf"]
    return found


def _limits(node: dict[str, Any], plain: str, exclusive: str) -> list[tuple[int | float, bool]]:
    """Each limit and whether it is excluded; `exclusive: true` of draft 4 changes the plain one."""
    found: list[tuple[int | float, bool]] = []
    if plain in node:
        found.append((node[plain], node.get(exclusive) is True))
    if exclusive in node and not isinstance(node[exclusive], bool):
        found.append((node[exclusive], True))
    return found


def _inwards(value: int, direction: int) -> int:
    """The nearest whole number in that direction which a float holds."""
    if int(float(value)) == value:
        return value
    near = float(value)
    while (int(near) - value) * direction < 0:
        near = math.nextafter(near, math.inf * direction)
    return int(near)
