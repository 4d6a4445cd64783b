"""What systemd is told of a service of `Type=notify`: ready, stopping, still making progress.

Own lines: the packages for it were last released years ago or need libsystemd, and the protocol
is a datagram.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, MutableMapping


class Systemd:
    """Silent where no systemd asks. The variables are taken away: engines shall not answer it."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._address = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        mine = pid in ("", str(os.getpid()))
        self._interval = int(usec) / 2e6 if usec.isdecimal() and mine else 0.0

    def loading(self, models: int) -> None:
        self._tell(f"STATUS=Loading {_counted(models, 'model')}")

    def ready(self, names: list[str]) -> None:
        self._tell("READY=1", f"STATUS=Serving {', '.join(names)}")

    def stopping(self, inside: int, seconds: float) -> None:
        """`seconds` is what systemd has to wait at least."""
        self._tell(
            "STOPPING=1",
            f"STATUS=Stopping; {_counted(inside, 'request')} may end first",
            f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}",
        )

    async def watched(self, progressing: Callable[[], bool]) -> None:
        """Tells of progress for as long as there is any, if systemd wants to hear of it."""
        while self._interval and self._address:
            if progressing():
                self._tell("WATCHDOG=1")
            await asyncio.sleep(self._interval)

    def _tell(self, *lines: str) -> None:
        if self._address[:1] not in ("/", "@"):
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            try:
                sock.sendto("\n".join(lines).encode(), address)
            except OSError:
                return  # nobody listens any more


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
