"""The rows of the README's table of what was survived."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """`figure` as measured, `target` as promised, both as they are printed."""

    what: str
    figure: str
    target: str
    held: bool
