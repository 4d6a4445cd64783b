"""A stream that nobody may be reading: whoever writes to it never waits.

A pipe that is full blocks its writer, and with it every request of a server whose log goes to a
pager, or to a collector that hangs.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

MOST_LINES = 10_000
"""Kept for a reader that is late; what comes then is lost, and counted."""
_LAST_SECONDS = 1.0
"""At the end, for what is not read yet."""


class PatientStream:
    """What is written is there at once where there is room, else as soon as there is some.

    Only then a thread does it, for as long as anything waits. One `write` is one line.
    """

    def __init__(self, stream: TextIO, lost: Callable[[int], str]) -> None:
        """`lost` is what is written in place of so many lines."""
        self._fd = stream.fileno()
        self._encoding = stream.encoding or "utf-8"
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._tell_lost = lost
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        atexit.register(self._idle.wait, _LAST_SECONDS)

    def write(self, text: str) -> int:
        """Raises OSError for a stream that is broken, such as a full disk."""
        data = text.encode(self._encoding, "backslashreplace")
        with self._lock:
            # A pipe that takes anything takes as much as this at once.
            if self._idle.is_set() and len(data) <= select.PIPE_BUF and self._poll.poll(0):
                os.write(self._fd, data)
            elif len(self._waiting) >= MOST_LINES:
                self._lost += 1
            else:
                self._waiting.append(data)
                if self._idle.is_set():
                    self._idle.clear()
                    threading.Thread(target=self._catch_up, daemon=True, name="log").start()
        return len(text)

    def flush(self) -> None:
        """Nothing is held back that could be written."""

    def _catch_up(self) -> None:
        while (data := self._next()) is not None:
            with contextlib.suppress(OSError):
                while data:
                    data = data[os.write(self._fd, data) :]

    def _next(self) -> bytes | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._lost:
                lost, self._lost = self._lost, 0
                return self._tell_lost(lost).encode(self._encoding, "backslashreplace")
            self._idle.set()
            return None


def may_block(stream: TextIO) -> bool:
    """Whether a write to it can wait for somebody: a pipe, a socket or a terminal."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)
