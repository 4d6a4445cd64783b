"""Durations as people write them."""

from __future__ import annotations

import math

import pytest

from server.core.durations import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("250ms", 0.25),
        (" 2D ", 172_800),
        ("1.5s", 1.5),
        ("0", 0),
        ("300", 300),
        (300, 300),
        (0.5, 0.5),
        ("-1", math.inf),
        (-1, math.inf),
        ("-5m", math.inf),
        (math.inf, math.inf),
    ],
)
def test_what_is_understood(text: object, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "m", "5 m", "5x", "m5", "1e3", "nan", "inf", "5m!", "٣m", "999999999d", "5" * 1000),
        *(None, True, [], {}, math.nan, 10**400, 1e300),
    ],
)
def test_what_is_not(text: object) -> None:
    with pytest.raises(ValueError):
        seconds_of(text)
