"""Tables on a terminal. Names are there to be copied: nothing is cut, a long line runs over."""

from __future__ import annotations

from collections.abc import Sequence

import typer


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        typer.echo(line.rstrip())
