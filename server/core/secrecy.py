"""What people wrote stays in the memory of the process that was given it."""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def leave_no_dump() -> None:
    """No core file when this process crashes, and no look into its memory but for root.

    Not inherited by what is executed: every process calls it for itself. On Linux `/proc/PID` of
    the process belongs to root from here on, so debuggers and profilers have to be root's.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
