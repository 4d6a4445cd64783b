"""What an engine process writes to standard error: log lines of the API process, with its model.

Its own lines come as JSON after a separator (RFC 7464); all else is what native code prints, such
as the assertion it ends by.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Iterator
from typing import Any

from server import logs

log = logging.getLogger("ingle.engine")

_SEPARATOR = "\x1e"
_LONGEST = 64 << 10
_MOST_PRINTED = 1000
"""Characters of a line that native code prints."""
_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def configure() -> None:
    """In the engine process."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.raiseExceptions = False


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "level": record.levelno,
            "logger": record.name,
            "event": record.getMessage(),
            "fields": {key: v for key, v in record.__dict__.items() if key not in _PLAIN},
        }
        if record.exc_info and (error := record.exc_info[1]):
            both = [logs.trace(error, messages=messages) for messages in (False, True)]
            line["fields"][logs.TRACES] = both
        return _SEPARATOR + json.dumps(line, default=str)


class Output:
    """The end of a pipe on which an engine's standard error is read, from `reading` to `close`."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._end: int | None = None
        self._rest = b""

    @contextlib.contextmanager
    def reading(self) -> Iterator[int]:
        """The other end, for the process that is started meanwhile."""
        self._end, theirs = os.pipe()
        os.set_blocking(self._end, False)
        asyncio.get_running_loop().add_reader(self._end, self._read)
        try:
            yield theirs
        except BaseException:
            self.close()
            raise
        finally:
            os.close(theirs)

    def close(self) -> None:
        """Tells what is left to tell."""
        if self._end is None:
            return
        while self._read():
            pass
        if self._end is not None:
            self._stop()

    def _stop(self) -> None:
        assert self._end is not None
        asyncio.get_running_loop().remove_reader(self._end)
        os.close(self._end)
        self._end = None
        rest, self._rest = self._rest, b""
        self._tell(rest)

    def _read(self) -> bool:
        """Whether there may be more."""
        if self._end is None:
            return False
        try:
            got = os.read(self._end, _LONGEST)
        except BlockingIOError:
            return False
        if not got:
            self._stop()
            return False
        *lines, self._rest = (self._rest + got).split(b"\n")
        if len(self._rest) > _LONGEST:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._tell(line)
        return True

    def _tell(self, raw: bytes) -> None:
        printed, separator, ours = raw.decode("utf-8", "replace").partition(_SEPARATOR)
        if printed.strip():
            text = printed.strip()[:_MOST_PRINTED]
            log.warning("the engine printed", extra={"model": self._model, "text": text})
        if separator:
            self._repeat(ours)

    def _repeat(self, text: str) -> None:
        try:
            line = json.loads(text)
        except ValueError:  # cut off by the process's end
            return
        extra = {**line["fields"], "model": self._model}
        logging.getLogger(line["logger"]).log(line["level"], line["event"], extra=extra)
