"""The one path of embeddings and scores: submit, collect, abort, record."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from server.core.protocol import Engine
from server.core.stats import Outcome, RequestRecord, StatsSink
from server.core.types import Admitted, Embedded, EmbedRequest, EngineEvent, Finished, Started

from .place import NOBODYS, within


class Vectors:
    """One request's. A context manager: leaving it early cancels what is not computed yet."""

    def __init__(self, engine: Engine, request: EmbedRequest, stats: StatsSink) -> None:
        self.model = engine.name
        self.prompt_tokens = 0
        self.place = NOBODYS
        self._stats = stats
        self._events: AsyncGenerator[list[EngineEvent]] = engine.embed(request)
        self._started = time.monotonic()
        self._finished: Finished | None = None
        self._waiting = True
        self._failed = False
        self._request = request
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
        if self.prompt_tokens:
            self.record = self._recorded(error)
            self._stats.on_request(self.record)

    async def collect(self) -> list[bytes]:
        """All of them, in the inputs' order: little-endian float32. Raises every refusal."""
        vectors: list[bytes] = []
        try:
            while self._finished is None:
                for event in await within(self._events, self.place, waiting=self._waiting):
                    vectors += self._seen(event)
        except Exception:
            self._failed = True
            raise
        return vectors

    def prompt(self) -> str:
        """All inputs, after the query if there is one."""
        asked, query = self._request, self._request.query
        return "\n".join(
            (*([query] if query is not None else ()), *asked.texts, *map(str, asked.tokens))
        )

    def _seen(self, event: EngineEvent) -> list[bytes]:
        if isinstance(event, Embedded):
            self._waiting = False
            self.place.entered()
            width = len(event.data) // event.count
            return [event.data[i : i + width] for i in range(0, len(event.data), width)]
        if isinstance(event, Admitted):
            self.prompt_tokens = event.prompt_tokens
            self.place.admitted(self.model, event.prompt_tokens, event.position)
        elif isinstance(event, Started):
            self._waiting = False
        elif isinstance(event, Finished):
            self._finished = event
            self.place.began()
        return []

    def _recorded(self, error: BaseException | None) -> RequestRecord:
        return RequestRecord(
            model=self.model,
            outcome=self._outcome(error),
            prompt_tokens=self.prompt_tokens,
            cached_tokens=0,
            completion_tokens=0,
            queue_seconds=self._finished.queue_seconds if self._finished else None,
            first_token_seconds=None,
            total_seconds=time.monotonic() - self._started,
        )

    def _outcome(self, error: BaseException | None) -> Outcome:
        if self._finished is not None:
            return "stop"
        return "error" if self._failed or isinstance(error, Exception) else "cancelled"
