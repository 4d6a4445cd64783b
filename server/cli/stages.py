"""Where a long task is: a bar a stage on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

Report = Callable[[str, int, int], None]
"""Stage, steps done, steps in all."""


@contextmanager
def show_stages(name: str, stream: TextIO = sys.stderr) -> Iterator[Report]:
    if stream.isatty():
        with _bars(stream) as report:
            yield report
    else:
        yield Lines(name, stream)


@contextmanager
def _bars(stream: TextIO) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description:16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done)

        yield report


class Lines:
    def __init__(self, name: str, stream: TextIO) -> None:
        self._name = name
        self._stream = stream
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage and done < total:
            typer.echo(f"{self._name}: {stage}", file=self._stream)
            self._stage = stage
