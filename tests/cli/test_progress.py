from __future__ import annotations

import io

from server.cli.progress import Lines, show_progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_for_every_tenth() -> None:
    out = io.StringIO()
    report = Lines("m", out, Clock())
    for done in range(0, 1001):
        report(done, 1000)
    lines = out.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "m: 10 % of 1 kB"
    assert lines[-1] == "m: 100 % of 1 kB"


def test_a_slow_download_is_heard_of_every_five_seconds() -> None:
    out, clock = io.StringIO(), Clock()
    report = Lines("m", out, clock)
    for second in range(21):
        clock.now = float(second)
        report(second, 1_000_000)
    assert len(out.getvalue().splitlines()) == 4


def test_a_stalled_download_is_silent_and_an_unknown_size_is_told_in_bytes() -> None:
    out, clock = io.StringIO(), Clock()
    report = Lines("m", out, clock)
    for second in range(0, 60, 6):
        clock.now = float(second)
        report(2000, None)
    assert out.getvalue() == "m: 2 kB\n"


def test_off_a_terminal_there_are_lines() -> None:
    out = io.StringIO()
    with show_progress("m", out) as report:
        report(10, 10)
    assert out.getvalue() == "m: 100 % of 10 B\n"
