"""Numbers for people."""

from __future__ import annotations


def in_bytes(count: int) -> str:
    """Decimal units, three digits: 98.4 MB, 1.12 GB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def in_time(seconds: float) -> str:
    """45 s, 12 min, 3 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.0f} h"
