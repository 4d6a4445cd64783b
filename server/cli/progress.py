"""How far a download is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

from .units import in_bytes

Report = Callable[[int, int | None], None]

_LINE_SHARE = 0.10
_LINE_SECONDS = 5.0


@contextmanager
def show_progress(name: str, stream: TextIO = sys.stderr) -> Iterator[Report]:
    if stream.isatty():
        with _bar(name, stream) as report:
            yield report
    else:
        yield Lines(name, stream)


@contextmanager
def _bar(name: str, stream: TextIO) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class Lines:
    """A line for every tenth of the file, or after five seconds if something came meanwhile."""

    def __init__(
        self, name: str, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._stream = stream
        self._clock = clock
        self._last_done = 0
        self._last_time = clock()

    def __call__(self, done: int, total: int | None) -> None:
        if not self._is_due(done, total):
            return
        share = f"{100 * done // total} % of {in_bytes(total)}" if total else in_bytes(done)
        typer.echo(f"{self._name}: {share}", file=self._stream)
        self._last_done, self._last_time = done, self._clock()

    def _is_due(self, done: int, total: int | None) -> bool:
        if done == self._last_done:
            return False
        if self._clock() - self._last_time >= _LINE_SECONDS:
            return True
        if total is None:
            return False
        return done == total or abs(done - self._last_done) >= _LINE_SHARE * total
