"""One line an event, whatever stands in it, and nothing that an exception quotes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import logging
import select
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from server import logs

NASTY = "a\r\nFAKE 2026 error\x1b[2J\x07\x9b31m\u2028\u202e%s%(x)s{}{0}\ud800é🦊"
SECRET = "ca" + "nary"
"""Not as lines of this file would show it in a trace."""
log = logging.getLogger("ingle.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    hooks = threading.excepthook, sys.unraisablehook
    yield
    root.handlers[:], root.level, logging.raiseExceptions = before
    threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)


def _configured(form: logs.Format, *, prompts: bool = False, terminal: bool = False) -> io.StringIO:
    stream = Terminal() if terminal else io.StringIO()
    logs.configure("debug", form, prompts=prompts, stream=stream)
    return stream


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_has_the_event_its_fields_and_the_time() -> None:
    stream = _configured("json")
    log.warning("a thing happened", extra={"model": "m", "requests": 3})
    (line,) = _lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "ingle.test",
        "event": "a thing happened",
        "model": "m",
        "requests": 3,
    }


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_whatever_stands_in_it_an_event_is_one_line_of_printable_text(form: logs.Format) -> None:
    stream = _configured(form)
    log.error(NASTY, extra={"model": NASTY, "list": [NASTY]})
    logging.getLogger("some.library").error("%s", NASTY)
    lines = stream.getvalue().removesuffix("\n").split("\n")
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    if form == "json":
        told = [json.loads(line) for line in lines]
        assert [line["event"] for line in told] == [NASTY, NASTY]
        assert (told[0]["model"], told[0]["list"]) == (NASTY, [NASTY])


@pytest.mark.parametrize(
    ("form", "terminal", "no_colour", "begins"),
    [
        ("auto", False, "", "{"),
        ("auto", True, "", "\x1b["),
        ("auto", True, "1", "0123456789"),
        ("pretty", False, "", "0123456789"),
        ("json", True, "", "{"),
    ],
)
def test_colours_are_for_terminals(
    monkeypatch: pytest.MonkeyPatch,
    form: logs.Format,
    terminal: bool,
    no_colour: str,
    begins: str,
) -> None:
    monkeypatch.setenv("NO_COLOR", no_colour)
    stream = _configured(form, terminal=terminal)
    log.info("an event")
    text = stream.getvalue()
    assert text.startswith(begins) or text[0] in begins
    assert ("\x1b[" in text) == (begins == "\x1b[")


def _raise_all(secret: str) -> None:
    try:
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise ValueError(f"of {secret}") from error
    except ValueError as error:
        both = [TypeError(secret), OSError(28, "No space", secret)]
        raise ExceptionGroup(secret, both) from error


@pytest.mark.parametrize("form", ["json", "pretty"])
@pytest.mark.parametrize("prompts", [False, True])
def test_what_exceptions_say_is_told_only_with_prompts(form: logs.Format, prompts: bool) -> None:
    stream = _configured(form, prompts=prompts)
    with pytest.raises(ExceptionGroup) as caught:
        _raise_all(SECRET)
    log.error("a bug", exc_info=caught.value)
    text = stream.getvalue()
    for kind in ("KeyError", "ValueError", "ExceptionGroup", "TypeError", "_raise_all", "No space"):
        assert kind in text
    assert (SECRET in text) == prompts
    if form == "pretty":
        first, *rest = text.splitlines()
        assert "a bug" in first
        assert all(line.startswith("    ") for line in rest)


def test_a_cycle_of_causes_ends() -> None:
    first, second = ValueError("a"), KeyError("b")
    first.__context__, second.__context__ = second, first
    assert logs.trace(first, messages=False) == "KeyError\nValueError"


def test_threads_warnings_and_what_nobody_caught_are_lines_too() -> None:
    stream = _configured("json")

    class Dropped:
        def __del__(self) -> None:
            raise ValueError(SECRET)

    thread = threading.Thread(target=lambda: int(SECRET))
    thread.start()
    thread.join()
    Dropped()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    broke, lost, warned = _lines(stream)
    assert (broke["event"], broke["exception"].split("\n")[-1]) == ("a thread broke", "ValueError")
    assert lost["event"] == "an error that nobody could catch"
    assert "old" in warned["event"]
    assert SECRET not in stream.getvalue()


def test_an_event_loop_says_nothing_of_the_errors_in_its_tasks() -> None:
    stream = _configured("json")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(logs.on_loop_error)
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(ValueError(SECRET))
        del failed
        gc.collect()

    asyncio.run(main())
    (line,) = _lines(stream)
    assert "exception was never retrieved" in line["event"]
    assert line["exception"] == "ValueError"
    assert SECRET not in stream.getvalue()


def test_a_full_disk_stops_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device", text)

    logs.configure("info", "json", stream=Full())
    log.error("an event")
    assert capfd.readouterr().err == ""


WRITES = """
import logging, sys
from server import logs
logs.configure("info", "json")
log = logging.getLogger("ingle.test")
for number in range(int(sys.argv[1])):
    log.info("a line", extra={"number": number, "text": "x" * int(sys.argv[2])})
print("done", flush=True)
sys.stdin.read()
log.info("the last")
"""


@contextlib.contextmanager
def _unread(lines: int, length: int = 100) -> Iterator[subprocess.Popen[bytes]]:
    """A process that logs into a pipe which nobody reads yet, and has gone on all the same."""
    words = [sys.executable, "-c", WRITES, str(lines), str(length)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 20)[0], "it waits for a reader"
            assert process.stdout.readline() == b"done\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("length", [100, 5000])
def test_a_log_that_nobody_reads_holds_up_nothing_and_is_there_later(length: int) -> None:
    with _unread(3000, length) as process:
        _, told = process.communicate(timeout=20)
    lines = [json.loads(line) for line in told.splitlines()]
    assert [line["number"] for line in lines[:-1]] == list(range(3000))
    assert lines[-1]["event"] == "the last"


def test_what_nobody_read_in_time_is_counted() -> None:
    with _unread(30_000) as process:
        _, told = process.communicate(timeout=20)
    lines = [json.loads(line) for line in told.splitlines()]
    numbers = [line["number"] for line in lines if line["event"] == "a line"]
    assert numbers == list(range(len(numbers))) and len(numbers) >= 10_000
    lost = sum(line["lines"] for line in lines if line["logger"] == "ingle")
    the_last = sum(line["event"] == "the last" for line in lines)
    assert lost + len(numbers) + the_last == 30_001


def test_a_process_ends_soon_though_nobody_reads() -> None:
    with _unread(3000) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
