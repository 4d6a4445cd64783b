"""The operating system's process of an engine, from its start to how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys

from server.core.config import EngineConfig
from server.core.errors import BY_NAME, StartupError
from server.core.interpreter import same_code
from server.core.types import ModelInfo

from . import oom
from .frames import ApiPipe, Leave, LoadFailed, Ready, Start
from .output import Output

SOCKET_BUFFER = 4 << 20
BARRIERS = {"GOMP_SPINCOUNT": "1000"}
"""OpenMP's threads meet at hundreds of barriers a step. By default they spin there for so long that
a second busy program on the same cores makes a step ten to fifty times slower; this bounds it."""
LAST_WORDS = {"GGML_NO_BACKTRACE": "1"}
"""An assertion that fails would first run gdb where there is one: for seconds in which its streams
stand still, and its report quotes what prompts say."""
LEAVE_SECONDS = 6.0
"""For an engine to keep its prefixes: what it has itself, and a step before."""
_LAST_SECONDS = 5.0
"""For a process whose pipe is closed to end by itself."""


class Spawned:
    """One process after the other, each with a pipe of its own while it lives."""

    def __init__(self, name: str, config: EngineConfig) -> None:
        self._name = name
        self._config = config
        self._output = Output(name)
        self._process: asyncio.subprocess.Process | None = None
        self._starts = 0
        self._oom_kills = 0
        self.pipe: ApiPipe | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def load(self) -> ModelInfo:
        """Start one and wait until it has loaded its model. Raises StartupError."""
        try:
            pipe = await self._spawn()
        except OSError as error:
            reason = f"cannot start an engine process: {error.strerror}"
            raise StartupError(f"{reason}; close other programs or raise the limits") from error
        self._starts += 1
        pipe.send(Start(self._config, self._starts))
        report = await pipe.receive()
        if isinstance(report, Ready):
            return report.info
        raise _load_error(report, self._name, await self.ended())

    async def _spawn(self) -> ApiPipe:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        with theirs, self._output.reading() as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server.engine.worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                env=BARRIERS | LAST_WORDS | same_code(),
            )
        self._oom_kills = oom.kills()
        self.pipe = await ApiPipe.open(ours)
        return self.pipe

    async def leave(self) -> None:
        """Let it end by itself once it has kept what it knows; not for long."""
        if self.pipe is None or self._process is None:
            return
        self.pipe.send(Leave())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), LEAVE_SECONDS)

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def ended(self) -> str:
        """Close its pipe and make sure that it is gone; say how it ended."""
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None
        if self._process is None:
            return "never started"
        try:
            code = await asyncio.wait_for(self._process.wait(), timeout=_LAST_SECONDS)
        except TimeoutError:
            self._process.kill()
            code = await self._process.wait()
        self._output.close()
        if code >= 0:
            return f"exit code {code}"
        oom_killed = -code == signal.SIGKILL and oom.kills() > self._oom_kills
        return _signal_name(-code) + " (oom?)" * oom_killed


def _signal_name(number: int) -> str:
    """Those of real-time have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _load_error(report: object, name: str, reason: str) -> StartupError:
    if isinstance(report, LoadFailed):
        found = BY_NAME.get(report.error, StartupError)
        kind = found if issubclass(found, StartupError) else StartupError
        return kind(report.message)
    return StartupError(
        f"the engine process for {name} ended while loading ({reason});"
        " the file may be damaged, or memory too short: try a smaller --ctx"
    )
