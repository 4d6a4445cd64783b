"""llama.cpp's log lines, forwarded to Python logging from WARNING on.

The callback object lives at module level: llama.cpp keeps its address, and a collected ctypes
callback is a crash at the next log line.
"""

from __future__ import annotations

import ctypes
import logging
from collections import deque

import llama_cpp

log = logging.getLogger("ingle.llama")

_LEVELS = {3: logging.WARNING, 4: logging.ERROR}
_recent: deque[str] = deque(maxlen=8)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
    if level not in _LEVELS:
        return
    line = text.decode("utf-8", "replace").strip()
    if line:
        _recent.append(line)
        log.log(_LEVELS[level], "llama.cpp", extra={"text": line})


def install() -> None:
    llama_cpp.llama_log_set(_on_log, ctypes.c_void_p(0))


def recent() -> str:
    """The last warnings and errors, newest last, for the reason of a failed load."""
    return "; ".join(_recent)
