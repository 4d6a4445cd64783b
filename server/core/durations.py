"""Durations as people write them: 300, "5m", "1h30m", "250ms"; below 0 means for ever."""

from __future__ import annotations

import math
import re

LONGEST = 1e9
"""Seconds, some thirty years."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)
_WHOLE = re.compile(rf"-?(?:{_PART.pattern})+", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,12}(\.\d{1,9})?", re.ASCII)


def seconds_of(value: object) -> float:
    """Raises ValueError for anything else; math.inf for less than 0."""
    if isinstance(value, str):
        text = value.strip().lower()
        if _NUMBER.fullmatch(text):
            value = float(text)
        elif _WHOLE.fullmatch(text):
            value = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
            value = -value if text.startswith("-") else value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError("not a duration")
    if LONGEST < value != math.inf:
        raise ValueError("too long a duration; less than 0 is for ever")
    return math.inf if value < 0 else float(value)
