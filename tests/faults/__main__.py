"""`python -m tests.faults [TOPIC…]`: measures what is promised and prints README's table."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from .table import Row

TOPICS = sorted(path.stem[8:] for path in Path(__file__).parent.glob("measure_*.py"))


def main(topics: list[str]) -> int:
    """How many rows are not as promised."""
    found: list[Row] = []
    for topic in topics or TOPICS:
        print(f"measuring {topic} …", file=sys.stderr, flush=True)
        found += importlib.import_module(f"tests.faults.measure_{topic}").rows()
    print("| What | Measured | Promised | |\n|---|---|---|---|")
    for row in found:
        print(f"| {row.what} | {row.figure} | {row.target} | {'✓' if row.held else 'missed'} |")
    return sum(not row.held for row in found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
