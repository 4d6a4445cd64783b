"""One engine process and its supervision. A task owns its state; others ask it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from enum import Enum

from server.core.config import EngineConfig
from server.core.errors import (
    EngineDown,
    EngineError,
    IngleError,
    InvalidRequest,
    ModelFileError,
    ModelLoading,
    OutOfMemory,
    ShuttingDown,
    StartupError,
)
from server.core.stats import StatsSink
from server.core.types import (
    Admitted,
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
    Go,
    Pause,
    StepFrame,
    Submit,
    Tokenize,
)
from .load_time import LoadTime
from .ongoing import Channel, Ongoing
from .spawned import Spawned
from .trial import Trial
from .watchdog import Watchdog

log = logging.getLogger("ingle.engine")

FIRST_BACKOFF = 0.5
LAST_BACKOFF = 30.0
RESUMES = 1
"""How often what a process read or computed when it died goes on in another one. A request that did
so twice may be the cause."""
LOAD_TRIES = 5
"""After so many loads in a row that failed, nobody is left waiting for the next one."""
READING_SECONDS = 10.0
"""At least so long an engine may take over reading: a list of texts, a grammar that is refused."""
STEADY_SECONDS = 60.0
"""An engine that served so long, or that finished anything, starts again at once; one that did not
after a back-off."""


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
        self._stats = stats
        self._info: ModelInfo | None = None
        self._child = Spawned(name, config)
        self._store = config.store
        self._ongoing: dict[str, Ongoing] = {}
        self._trial = Trial()
        self._finished_any = False
        self._hung = False
        self._why = ""
        """It cannot be started again, for clients."""
        self._load_time = LoadTime()
        patience = config.scheduler.watchdog_seconds
        self._watchdog = Watchdog(patience)
        self._reading = Watchdog(max(patience, READING_SECONDS))
        self._task: asyncio.Task[None] | None = None
        self.state = State.STARTING

    @property
    def name(self) -> str:
        return self._name

    @property
    def ready(self) -> bool:
        late = self._watchdog.overdue or self._reading.overdue
        return self.state is State.READY and not late

    @property
    def progressing(self) -> bool:
        """Whether it serves, or is about to."""
        return self.state is not State.FAILED

    @property
    def load_left(self) -> float:
        """Seconds until a load that runs, or the next one, should be done."""
        return self._load_time.left(time.monotonic())

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def info(self) -> ModelInfo:
        if self._info is None:
            raise self._not_there("still loading")
        return self._info

    @property
    def loaded(self) -> ModelInfo | None:
        """Of the last successful load, if there was one."""
        return self._info

    async def start(self) -> None:
        """Load the model and keep it served until `stop`."""
        await self._launch()
        self._task = asyncio.create_task(self._supervise(), name=f"engine {self._name}")

    async def stop(self, *, final: bool = False) -> None:
        """What it holds ends; what it knows is kept for the next one, if there may be one.

        `final`: the server ends with it.
        """
        was_up = self.state is State.READY
        self.state = State.STOPPED
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail_requests(ShuttingDown("The server is shutting down."))
        worth = self._store is not None and (self._store.lasting or not final)
        if worth and was_up:  # one that still loads knows nothing, and cannot be told
            await self._child.leave()
        self._child.kill()
        await self._child.ended()

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
                if not self._trial.holds_back(command.request.id):
                    pipe.send(command)
            while channel.open:
                events = await channel.take()
                for request_id in channel.paused & channel.open:
                    self._send(Go(request_id))
                channel.paused.clear()
                yield events
        finally:
            for request_id in ids:
                self._ongoing.pop(request_id, None)
            for request_id in channel.open:
                self._send(Cancel(request_id))
                self._hand_in(self._trial.over(request_id))

    async def tokenize(self, text: tuple[TextPiece, ...], *, begin: bool = False) -> Tokenized:
        return await self._ask(Tokenize(_new_id(), text, begin))

    async def detokenize(self, tokens: tuple[int, ...]) -> Tokenized:
        return await self._ask(Detokenize(_new_id(), tokens))

    async def _ask(self, question: Tokenize | Detokenize) -> Tokenized:
        pipe = self._open_pipe()
        channel = Channel({question.id})
        self._ongoing[question.id] = Ongoing(question, channel)
        try:
            if not self._trial.holds_back(question.id):
                pipe.send(question)
            (answer,) = await channel.take()
        finally:
            self._ongoing.pop(question.id, None)
            self._hand_in(self._trial.over(question.id))
        assert isinstance(answer, Tokenized)
        return answer

    def _open_pipe(self) -> ApiPipe:
        if self.state is State.FAILED:
            raise self._down()
        if self._child.pipe is None or not self.ready:
            late = self.state is State.READY
            raise self._not_there("not answering" if late else self.state.value)
        return self._child.pipe

    def _down(self) -> EngineDown:
        return EngineDown(
            f"The engine of the model {self._name} ended and cannot be started again:"
            f" {self._why}. The server goes on trying."
        )

    def _not_there(self, why: str) -> ModelLoading:
        error = ModelLoading(f"The model {self._name} is {why}; try again shortly.")
        error.retry_after = self.load_left
        return error

    def _send(self, command: Cancel | Pause | Go) -> None:
        """To the process that is there; the next one holds nothing yet."""
        if self._child.pipe is not None:
            self._child.pipe.send(command)

    async def _supervise(self) -> None:
        backoff = 0.0
        while True:
            since = time.monotonic()
            watching = asyncio.create_task(self._watch())
            try:
                await self._serve()
            except Exception:
                log.exception("a bug while answers were handed out", extra=self._with())
                self._child.kill()
            finally:
                watching.cancel()
            self._lost()
            reason = await self._child.ended()
            reason = "hang" if self._hung else reason
            told = {"reason": reason, "requests": len(self._ongoing)}
            log.error("an engine ended; starting it again", extra=self._with(**told))
            self._stats.on_restart(self._name, reason)
            if self._finished_any or time.monotonic() - since > STEADY_SECONDS:
                backoff = 0.0
            await self._back_off(backoff)
            backoff = _longer(backoff)
            tries = 1
            while not await self._relaunched(last=tries == LOAD_TRIES):
                tries += 1
                await self._back_off(backoff)
                backoff = _longer(backoff)

    async def _back_off(self, seconds: float) -> None:
        self._load_time.begin(time.monotonic() + seconds)
        await asyncio.sleep(seconds)

    async def _serve(self) -> None:
        """Hand out events until the process is gone."""
        assert self._child.pipe is not None
        while (report := await self._child.pipe.receive()) is not None:
            if isinstance(report, StepFrame):
                self._dispatch(report)

    def _lost(self) -> None:
        """See what may go on in the next one."""
        self.state = State.RESTARTING
        self._load_time.begin(time.monotonic())
        blamed = self._trial.suspect
        self._trial.begin((), ())
        for ongoing in self._ongoing.values():
            ongoing.crash(blamed=blamed is None)
        error = EngineError("The engine stopped twice while it held this request.")
        for request_id, ongoing in list(self._ongoing.items()):
            if request_id == blamed or ongoing.crashes > RESUMES:
                self._fail(request_id, error)

    async def _watch(self) -> None:
        """End the process when it owes progress and makes none."""
        while True:
            await asyncio.sleep(self._watchdog.interval)
            if self._hangs(time.monotonic()):
                log.error("an engine makes no progress; ending it", extra=self._with())
                self._hung = True
                self._child.kill()
                return

    def _hangs(self, now: float) -> bool:
        """It owes steps to what it admitted, and to what it was handed a word whether it does."""
        suspect = self._ongoing.get(self._trial.suspect or "")
        handed_in = self._ongoing.values() if suspect is None else (suspect,)
        computes = self._watchdog.tick(now, owing=self._owing)
        reads = self._reading.tick(now, owing=any(not one.admitted for one in handed_in))
        return computes or reads

    @property
    def _owing(self) -> bool:
        """Whether there must be progress: paused requests keep their slots, perhaps all of them."""
        paused = sum(ongoing.paused for ongoing in self._ongoing.values())
        owing = any(ongoing.owing for ongoing in self._ongoing.values())
        return owing and paused < self.info.slots

    async def _relaunched(self, *, last: bool) -> bool:
        """Whether the next process has what is ongoing; at the `last` failure it is given up."""
        try:
            await self._launch()
        except StartupError as error:
            reason = self._with(reason=error.message)
            log.error("an engine cannot load; trying again", extra=reason)
            self._why = reason_of(error)
            if last:
                self.state = State.FAILED
                self._fail_requests(self._down())
            return False
        suspects = [request_id for request_id, held in self._ongoing.items() if held.suspect]
        suspects.sort(key=lambda request_id: self._ongoing[request_id].unread)
        others = [request_id for request_id in self._ongoing if request_id not in suspects]
        self._hand_in(self._trial.begin(suspects, others))
        requests = self._with(requests=len(self._ongoing))
        log.warning("an engine is ready again; its requests go on", extra=requests)
        return True

    async def _launch(self) -> None:
        """Start a process and wait until the model is loaded. Raises StartupError."""
        self._load_time.begin(time.monotonic())
        self._info = await self._child.load()
        self._stats.on_load(self._name, self._info)
        for watchdog in (self._watchdog, self._reading):
            watchdog.start(time.monotonic())
        self._finished_any = self._hung = False
        self.state = State.READY
        self._load_time.end(time.monotonic())

    def _hand_in(self, request_ids: list[str]) -> None:
        """What was held back; those that left meanwhile are no more."""
        for request_id in request_ids:
            if request_id not in self._ongoing:
                self._hand_in(self._trial.over(request_id))
            elif self._child.pipe is not None:
                try:
                    self._child.pipe.send(self._ongoing[request_id].rest())
                except InvalidRequest as error:  # too large for the pipe, with what it said since
                    self._fail(request_id, error)

    def _dispatch(self, frame: StepFrame) -> None:
        for event in frame.events:
            ongoing = self._ongoing.get(event.id)
            if ongoing is not None:
                if ongoing.clears(event):
                    ongoing.suspect = False
                    self._hand_in(self._trial.over(event.id))
                if ongoing.put(event):
                    self._send(Pause(event.id))
                self._finished_any |= isinstance(event, Finished)
                if isinstance(event, Finished | Failed):  # others of its call may go on for long
                    del self._ongoing[event.id]
        now = time.monotonic()
        if frame.steps or frame.patience:
            self._watchdog.progress(now, frame.patience)
        if any(isinstance(event, Admitted | Failed | Tokenized) for event in frame.events):
            self._reading.progress(now, 0.0)
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


def reason_of(error: StartupError) -> str:
    """What clients may know of it: paths and the machine's numbers are its operator's."""
    if isinstance(error, OutOfMemory):
        return "memory is too short"
    if isinstance(error, ModelFileError):
        return "its file cannot be loaded"
    return "it ends while it loads"


def _longer(backoff: float) -> float:
    return min(2 * backoff, LAST_BACKOFF) or FIRST_BACKOFF
