"""What every engine loop needs: commands off the pipe, a no to some, and its memory in numbers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import psutil

from server.core.errors import InvalidRequest
from server.core.types import Failed, ModelInfo

from .frames import Command, Embed, EnginePipe, Leave, Start, StepFrame, Submit

log = logging.getLogger("ingle.engine")

RSS_INTERVAL = 2.0


def read_commands(pipe: EnginePipe, take: Callable[[Command], None]) -> None:
    """Until the pipe closes. The process ends with it: nobody would hear its answers."""
    try:
        while (command := pipe.receive()) is not None:
            take(command)
        os._exit(0)
    except Exception:
        log.exception("the reader thread failed")
        os._exit(1)


def refusal(command: Command, info: ModelInfo) -> StepFrame:
    """The answer to a request for something this kind of model does not do."""
    assert not isinstance(command, Start | Leave)
    request_id = command.request.id if isinstance(command, Submit | Embed) else command.id
    error = InvalidRequest(
        f"This model cannot do that: its kind is {info.kind}.",
        param="model",
        code="unsupported_value",
    )
    return StepFrame((Failed.of(request_id, error),))


class ResidentMemory:
    """Of this process, in bytes; asked of the kernel only now and then."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._bytes, self._read_at = 0, 0.0

    def bytes(self, now: float) -> int:
        if now - self._read_at > RSS_INTERVAL:
            self._bytes = int(self._process.memory_info().rss)
            self._read_at = now
        return self._bytes
