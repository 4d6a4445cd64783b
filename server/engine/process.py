"""One engine process and its supervision. A task owns its state; others ask it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator
from enum import Enum

from server.core.config import EngineConfig
from server.core.errors import (
    BY_NAME,
    EngineError,
    IngleError,
    ModelLoading,
    ShuttingDown,
    StartupError,
)
from server.core.stats import StatsSink
from server.core.types import (
    EmbedRequest,
    EngineEvent,
    Failed,
    Finished,
    GenerateRequest,
    ModelInfo,
    TextPiece,
    Tokenized,
)

from .frames import (
    ApiPipe,
    Cancel,
    Detokenize,
    Embed,
    LoadFailed,
    Ready,
    Start,
    StepFrame,
    Submit,
    Tokenize,
)
from .ongoing import Channel, Ongoing
from .output import Output
from .watchdog import Watchdog

log = logging.getLogger("ingle.engine")

FIRST_BACKOFF = 0.5
LAST_BACKOFF = 30.0
RESUMES = 1
"""How often a request goes on in another process. One present at two crashes may be their cause."""
STEADY_SECONDS = 60.0
"""An engine that served so long, or that finished anything, starts again at once; one that did not
after a back-off."""
SOCKET_BUFFER = 4 << 20
BARRIERS = {"GOMP_SPINCOUNT": "1000"}
"""OpenMP's threads meet at hundreds of barriers a step. By default they spin there for so long that
a second busy program on the same cores makes a step ten to fifty times slower; this bounds it."""


class State(Enum):
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


class EngineProcess:
    """An `Engine` in a process of its own, started again with back-off when it dies or hangs.

    What it held goes on in the next one where it was: prompt and tokens are computed again, nothing
    is told twice.

    `start()` raises StartupError when the first load fails; later failed loads are tried again.
    """

    def __init__(self, name: str, config: EngineConfig, stats: StatsSink) -> None:
        self._name = name
        self._config = config
        self._stats = stats
        self._info: ModelInfo | None = None
        self._pipe: ApiPipe | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._output = Output(name)
        self._ongoing: dict[str, Ongoing] = {}
        self._finished_any = False
        self._watchdog = Watchdog(config.scheduler.watchdog_seconds)
        self._task: asyncio.Task[None] | None = None
        self.state = State.STARTING

    @property
    def name(self) -> str:
        return self._name

    @property
    def ready(self) -> bool:
        return self.state is State.READY and not self._watchdog.overdue

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def info(self) -> ModelInfo:
        if self._info is None:
            raise ModelLoading(f"The model {self._name} is still loading; try again shortly.")
        return self._info

    async def start(self) -> None:
        """Load the model and keep it served until `stop`."""
        await self._launch()
        self._task = asyncio.create_task(self._supervise(), name=f"engine {self._name}")

    async def stop(self) -> None:
        self.state = State.STOPPED
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._reap()
        self._fail_requests(ShuttingDown("The server is shutting down."))

    def generate(self, *requests: GenerateRequest) -> AsyncGenerator[list[EngineEvent]]:
        return self._exchange([Submit(request) for request in requests])

    def embed(self, request: EmbedRequest) -> AsyncGenerator[list[EngineEvent]]:
        return self._exchange([Embed(request)])

    async def _exchange(self, commands: list[Submit | Embed]) -> AsyncGenerator[list[EngineEvent]]:
        pipe = self._open_pipe()
        ids = [command.request.id for command in commands]
        channel = Channel(set(ids))
        try:
            for command in commands:
                self._ongoing[command.request.id] = Ongoing(command, channel)
                pipe.send(command)
            while channel.open:
                yield await channel.take()
        finally:
            for request_id in ids:
                self._ongoing.pop(request_id, None)
            for request_id in channel.open:
                self._cancel(request_id)

    async def tokenize(self, text: tuple[TextPiece, ...], *, begin: bool = False) -> Tokenized:
        return await self._ask(Tokenize(_new_id(), text, begin))

    async def detokenize(self, tokens: tuple[int, ...]) -> Tokenized:
        return await self._ask(Detokenize(_new_id(), tokens))

    async def _ask(self, question: Tokenize | Detokenize) -> Tokenized:
        pipe = self._open_pipe()
        channel = Channel({question.id})
        self._ongoing[question.id] = Ongoing(question, channel)
        try:
            pipe.send(question)
            (answer,) = await channel.take()
        finally:
            self._ongoing.pop(question.id, None)
        assert isinstance(answer, Tokenized)
        return answer

    def _open_pipe(self) -> ApiPipe:
        if self._pipe is None or not self.ready:
            raise ModelLoading(f"The model {self._name} is {self.state.value}; try again shortly.")
        return self._pipe

    def _cancel(self, request_id: str) -> None:
        if self._pipe is not None:
            self._pipe.send(Cancel(request_id))

    async def _supervise(self) -> None:
        backoff = 0.0
        while True:
            since = time.monotonic()
            watching = asyncio.create_task(self._watch())
            try:
                await self._serve()
            finally:
                watching.cancel()
            reason = await self._reap()
            told = {"reason": reason, "requests": len(self._ongoing)}
            log.error("an engine ended; starting it again", extra=self._with(**told))
            self._stats.on_restart(self._name, reason)
            if self._finished_any or time.monotonic() - since > STEADY_SECONDS:
                backoff = 0.0
            await asyncio.sleep(backoff)
            backoff = _longer(backoff)
            while not await self._relaunched():
                await asyncio.sleep(backoff)
                backoff = _longer(backoff)

    async def _serve(self) -> None:
        """Hand out events until the process is gone; then see what may go on in the next one."""
        assert self._pipe is not None
        while (report := await self._pipe.receive()) is not None:
            if isinstance(report, StepFrame):
                self._dispatch(report)
        self.state = State.RESTARTING
        for request_id, ongoing in list(self._ongoing.items()):
            ongoing.crashes += 1
            if ongoing.crashes > RESUMES:
                error = EngineError("The engine stopped twice while it held this request.")
                self._fail(request_id, error)

    async def _watch(self) -> None:
        """End the process when it owes progress and makes none."""
        while True:
            await asyncio.sleep(self._watchdog.interval)
            owing = any(ongoing.admitted for ongoing in self._ongoing.values())
            if self._watchdog.tick(time.monotonic(), owing=owing) and self._process is not None:
                log.error("an engine makes no progress; ending it", extra=self._with())
                self._process.kill()
                return

    async def _relaunched(self) -> bool:
        try:
            await self._launch()
        except StartupError as error:
            self.state = State.FAILED
            reason = self._with(reason=error.message)
            log.error("an engine cannot load; trying again", extra=reason)
            self._fail_requests(EngineError("The engine stopped and cannot be started again."))
            return False
        assert self._pipe is not None
        for ongoing in self._ongoing.values():
            self._pipe.send(ongoing.rest())
        requests = self._with(requests=len(self._ongoing))
        log.warning("an engine is ready again; its requests go on", extra=requests)
        return True

    async def _launch(self) -> None:
        """Start the process and wait until the model is loaded. Raises StartupError."""
        try:
            await self._spawn()
        except OSError as error:
            reason = f"cannot start an engine process: {error.strerror}"
            raise StartupError(f"{reason}; close other programs or raise the limits") from error
        await self._loaded()

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        with theirs, self._output.reading() as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server.engine.worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                env=BARRIERS | os.environ,
            )
        self._pipe = await ApiPipe.open(ours)

    async def _loaded(self) -> None:
        assert self._pipe is not None
        self._pipe.send(Start(self._config))
        report = await self._pipe.receive()
        if not isinstance(report, Ready):
            raise await self._load_error(report)
        self._info = report.info
        self._stats.on_load(self._name, report.info)
        self._watchdog.start(time.monotonic())
        self._finished_any = False
        self.state = State.READY

    async def _load_error(self, report: LoadFailed | StepFrame | None) -> StartupError:
        reason = await self._reap()
        if isinstance(report, LoadFailed):
            found = BY_NAME.get(report.error, StartupError)
            return (
                found(report.message)
                if issubclass(found, StartupError)
                else StartupError(report.message)
            )
        return StartupError(
            f"the engine process for {self._name} ended while loading ({reason});"
            " the file may be damaged, or memory too short: try a smaller --ctx"
        )

    async def _reap(self) -> str:
        """Make sure the process is gone; say how it ended."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is None:
            return "never started"
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None and self.state is State.STOPPED:
                self._process.kill()
        try:
            code = await asyncio.wait_for(self._process.wait(), timeout=5)
        except TimeoutError:
            self._process.kill()
            code = await self._process.wait()
        self._output.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _dispatch(self, frame: StepFrame) -> None:
        for event in frame.events:
            ongoing = self._ongoing.get(event.id)
            if ongoing is not None:
                ongoing.put(event)
                if isinstance(event, Finished):
                    self._finished_any = True
                    del self._ongoing[event.id]  # the other choices may outlive this process
        if frame.steps or frame.patience:
            self._watchdog.progress(time.monotonic(), frame.patience)
        for step in frame.steps:
            self._stats.on_step(self._name, step)

    def _with(self, **fields: object) -> dict[str, object]:
        """For a log line."""
        return {"model": self._name, **fields}

    def _fail_requests(self, error: IngleError) -> None:
        for request_id in list(self._ongoing):
            self._fail(request_id, error)

    def _fail(self, request_id: str, error: IngleError) -> None:
        self._ongoing.pop(request_id).put(Failed.of(request_id, error))


def _new_id() -> str:
    return f"tok-{secrets.token_hex(8)}"


def _longer(backoff: float) -> float:
    return min(2 * backoff, LAST_BACKOFF) or FIRST_BACKOFF
