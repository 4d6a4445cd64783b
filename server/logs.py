"""Log lines on standard error: an event and its fields, pretty on a terminal, else as JSON.

Everybody logs through `logging`, the event as message and its fields as `extra`; structlog makes
the lines of them. What exceptions say is left out, for it may quote what a user wrote, unless
prompts may be logged.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from server.core.patience import PatientStream, may_block

Format = Literal["auto", "pretty", "json"]
Fields = MutableMapping[str, Any]

TRACE = "exception"
"""The field that holds a stack, over several lines."""
TRACES = "traces"
"""Of an exception in another process: its trace without messages, and with them."""
_LOST = "lines of the log are lost: nobody read them in time"
_WIDTH = 24
"""Of the event on a terminal, so that most fields begin in one column."""


def configure(
    level: str, form: Format = "auto", *, prompts: bool = False, stream: TextIO | None = None
) -> None:
    """All lines of this process, also of warnings and of threads that break.

    `prompts`: whether they may hold what users wrote.
    """
    stream = stream or sys.stderr
    formatter = _formatter(form, stream, prompts=prompts)

    def lost(lines: int) -> str:
        record = logging.LogRecord("ingle", logging.WARNING, "", 0, _LOST, (), None)
        record.lines = lines
        return f"{formatter.format(record)}\n"

    handler: logging.StreamHandler[Any] = logging.StreamHandler(
        PatientStream(stream, lost) if may_block(stream) else stream
    )
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    least = max(logging.getLogger().level, logging.WARNING)
    logging.raiseExceptions = False  # a full disk is told nowhere, and stops nothing
    logging.captureWarnings(True)
    for chatty in ("uvicorn", "asyncio"):
        logging.getLogger(chatty).setLevel(least)
    threading.excepthook = _on_thread_broken
    sys.unraisablehook = _on_unraisable


def _formatter(form: Format, stream: TextIO, *, prompts: bool) -> logging.Formatter:
    import structlog  # half as long as all else that `ingle --help` imports
    from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name

    def add_trace(_: Any, __: str, fields: Fields) -> Fields:
        error, traces = fields.pop("exc_info", None), fields.pop(TRACES, None)
        if error and error[1] is not None:
            fields[TRACE] = trace(error[1], messages=prompts)
        elif traces:
            fields[TRACE] = traces[prompts]
        return fields

    terminal = stream.isatty()
    if form == "json" or (form == "auto" and not terminal):
        last: list[Any] = [_in_order, structlog.processors.JSONRenderer()]
        stamp = _add_utc
    else:
        colours = terminal and not os.environ.get("NO_COLOR")
        renderer = structlog.dev.ConsoleRenderer(
            colors=colours, pad_event_to=_WIDTH, sort_keys=False
        )
        last = [_escape, renderer]
        stamp = _add_clock
    return ProcessorFormatter(
        foreign_pre_chain=[ExtraAdder(), add_log_level, add_logger_name, stamp, add_trace],
        processors=[ProcessorFormatter.remove_processors_meta, *last],
    )


def trace(error: BaseException, *, messages: bool) -> str:
    """Where it was raised, and what it is; with `messages` what it and its causes say too."""
    if messages:
        return "".join(traceback.format_exception(error)).rstrip("\n")
    return "\n".join(
        "".join(traceback.format_tb(link.__traceback__)) + _kind(link) for link in _links(error)
    )


def on_loop_error(_: object, context: dict[str, Any]) -> None:
    """For an event loop: its own words hold the `repr` of tasks, and with it what errors say."""
    error = context.get("exception")
    log = logging.getLogger("asyncio")
    log.error(context["message"], exc_info=(type(error), error, None) if error else None)


def _links(error: BaseException) -> Iterator[BaseException]:
    """It and all it came from, the first cause first."""
    seen: dict[int, BaseException] = {}
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if id(link) not in seen:
            seen[id(link)] = link
            waiting += link.exceptions if isinstance(link, BaseExceptionGroup) else ()
            before = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
            waiting += [before] if before else []
    return reversed(seen.values())


def _kind(error: BaseException) -> str:
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    reason = error.strerror if isinstance(error, OSError) else None
    return f"{name}: {reason}" if reason else name


def _on_thread_broken(hook: threading.ExceptHookArgs) -> None:
    if hook.exc_value is not None and hook.exc_type is not SystemExit:
        _tell_of("a thread broke", hook.exc_value)


def _on_unraisable(hook: sys.UnraisableHookArgs) -> None:
    if hook.exc_value is not None:
        _tell_of("an error that nobody could catch", hook.exc_value)


def _tell_of(event: str, error: BaseException) -> None:
    logging.getLogger("ingle").error(event, exc_info=(type(error), error, error.__traceback__))


def _add_utc(_: Any, __: str, fields: Fields) -> Fields:
    moment = datetime.fromtimestamp(fields["_record"].created, UTC)
    fields["timestamp"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return fields


def _add_clock(_: Any, __: str, fields: Fields) -> Fields:
    fields["timestamp"] = f"{datetime.fromtimestamp(fields['_record'].created):%H:%M:%S}"
    del fields["logger"]
    return fields


def _in_order(_: Any, __: str, fields: Fields) -> Fields:
    first = ("timestamp", "level", "logger", "event")
    return {key: fields.pop(key) for key in first} | dict(fields)


def _escape(_: Any, __: str, fields: Fields) -> Fields:
    """No field can end its line, move the cursor or hide; JSON escapes them by itself."""
    for key, value in fields.items():
        if key == TRACE:
            fields[key] = "\n".join(f"    {_visible(line)}" for line in value.split("\n"))
        elif key == "event":
            fields[key] = _visible(value)
        elif isinstance(value, str) and not value.isprintable():
            fields[key] = _Quoted(value)
    return fields


class _Quoted:
    """A text that is printed as Python would spell it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)


def _visible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
