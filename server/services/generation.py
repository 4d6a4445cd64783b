"""The one path of a generation: submit, await admission, iterate, abort, record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from server.core.errors import InvalidRequest
from server.core.protocol import Engine
from server.core.stats import Outcome, RequestRecord, StatsSink
from server.core.types import (
    Admitted,
    EngineEvent,
    Finished,
    GenerateRequest,
    PromptScored,
    TokenDelta,
    Usage,
)

from .place import NOBODYS, within

Progress = PromptScored | TokenDelta | Finished


class Generation:
    """The choices of one request, generated together: `per_prompt` of each prompt, in a row.

    `admitted()` raises every refusal; after it the answer may begin. Iterating yields what each
    step brought. Used as a context manager: leaving it early cancels the rest. `grammar_of` is the
    field a grammar came from, for the engine cannot know it.
    """

    def __init__(
        self,
        engine: Engine,
        requests: list[GenerateRequest],
        stats: StatsSink,
        *,
        per_prompt: int | None = None,
        grammar_of: str = "",
    ) -> None:
        self.model = engine.name
        self.place = NOBODYS
        self.choices = {request.id: index for index, request in enumerate(requests)}
        self._firsts = [request.id for request in requests[:: per_prompt or len(requests)]]
        self._grammar_of = grammar_of
        self._stats = stats
        self._events: AsyncGenerator[list[EngineEvent]] = engine.generate(*requests)
        self._early: list[EngineEvent] = []
        self._waiting = True
        self._started = time.monotonic()
        self._last: dict[str, float] = {}
        self._finished: dict[str, Finished] = {}
        self._first_token: float | None = None
        self._prompt_tokens: dict[str, int] = {}
        self._generated: Counter[str] = Counter()
        self._failed = False
        self._first = requests[0]
        self.record: RequestRecord | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._events.aclose()
        if self._prompt_tokens:
            self.record = self._recorded(error)
            self._stats.on_request(self.record)

    async def admitted(self) -> int:
        """Wait until the engine has taken every choice. Returns the prompts' tokens."""
        with self._naming():
            position = await self._all_admitted()
        self.place.admitted(self.model, self._admitted_tokens(), position)
        return self._admitted_tokens()

    async def _all_admitted(self) -> int:
        """Returns the position of the choice that is served first."""
        waiting, positions = set(self.choices), []
        while waiting:
            for event in await self._next():
                if isinstance(event, Admitted):
                    waiting.discard(event.id)
                    positions.append(event.position)
                    self._prompt_tokens[event.id] = event.prompt_tokens
                else:
                    self._early.append(event)
        return min(positions)

    async def _next(self) -> list[EngineEvent]:
        """A request waits for a slot until its first choice has one."""
        events = await within(self._events, self.place, waiting=self._waiting)
        if self._waiting and not all(isinstance(event, Admitted) for event in events):
            self._waiting = False
            self.place.entered()
        return events

    async def __aiter__(self) -> AsyncGenerator[list[Progress]]:
        if self._early:
            yield self._seen(self._early)
        try:
            with self._naming(), suppress(StopAsyncIteration):
                while True:
                    yield self._seen(await self._next())
        except Exception:
            self._failed = True
            raise

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """A refusal of a grammar names the field it came from."""
        try:
            yield
        except InvalidRequest as error:
            if error.error_code == "invalid_grammar" and self._grammar_of:
                error.param = self._grammar_of
            raise

    def prompt(self) -> str:
        """Of the first choice, as text or token ids."""
        tokens = self._first.prompt_tokens
        return str(list(tokens)) if tokens else "".join(piece.text for piece in self._first.prompt)

    def usages(self) -> list[Usage]:
        """Of all finished choices, in order."""
        return [self._finished[id].usage for id in self.choices if id in self._finished]

    def usage(self) -> Usage:
        """Of all that finished, each prompt counted once."""
        usages = self.usages()
        firsts = [self._finished[id].usage for id in self._firsts if id in self._finished]
        return Usage(
            sum(usage.prompt_tokens for usage in firsts),
            sum(usage.cached_tokens for usage in firsts),
            sum(usage.completion_tokens for usage in usages),
        )

    def _seen(self, events: list[EngineEvent]) -> list[Progress]:
        now = time.monotonic()
        seen: list[Progress] = []
        for event in events:
            if isinstance(event, TokenDelta):
                self._on_delta(event, now)
            elif isinstance(event, Finished):
                self._on_end(event)
            elif not isinstance(event, PromptScored):
                continue
            seen.append(event)
        return seen

    def _on_delta(self, delta: TokenDelta, now: float) -> None:
        if self._first_token is None:
            self.place.began()
            self._first_token = now - self._started
        before = self._last.get(delta.id)
        if before is not None and delta.tokens:
            self._stats.on_gap(self.model, now - before, len(delta.tokens))
        self._last[delta.id] = now
        self._generated[delta.id] += len(delta.tokens)
        self.place.used(len(delta.tokens))

    def _on_end(self, finished: Finished) -> None:
        """An answer that went on in another engine process may have chosen tokens twice."""
        self._finished[finished.id] = finished
        self._generated[finished.id] = finished.usage.completion_tokens

    def _admitted_tokens(self) -> int:
        return sum(self._prompt_tokens.get(id, 0) for id in self._firsts)

    def _recorded(self, error: BaseException | None) -> RequestRecord:
        queued = [finished.queue_seconds for finished in self._finished.values()]
        return RequestRecord(
            model=self.model,
            outcome=self._outcome(error),
            prompt_tokens=self._admitted_tokens(),
            cached_tokens=self.usage().cached_tokens,
            completion_tokens=self._generated.total(),
            queue_seconds=min(queued, default=None),
            first_token_seconds=self._first_token,
            total_seconds=time.monotonic() - self._started,
        )

    def _outcome(self, error: BaseException | None) -> Outcome:
        if self._failed or isinstance(error, Exception):
            return "error"
        if len(self._finished) < len(self.choices):
            return "cancelled"
        reasons = {finished.reason for finished in self._finished.values()}
        return "length" if "length" in reasons else "stop"
