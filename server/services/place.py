"""The place of one request inside: what it waits for, and by when it must have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from server.core.errors import DeadlineExceeded, IngleError
from server.core.types import EngineEvent

T = TypeVar("T")

Phase = Literal["loading", "queued", "prefill", "decode"]
"""What a request waits for: its model, a slot, its prompt to be read, the end."""


class Place:
    """What a request tells of itself on its way. This one is nobody's: nothing is counted."""

    position = 0
    """In its model's queue when the engine took it; 0 where there was a slot at once."""
    estimate: float | None = None
    """Seconds until it should get one, once that is measured."""
    phase: Phase = "loading"
    has_body = False
    """Whether all of its body has come."""
    prompt_tokens: int | None = None
    """Once they are counted."""
    generated = 0
    _ended_by: IngleError | None = None
    _work: asyncio.Task[Any] | None = None
    _on_end: Callable[[], None] | None = None

    def read(self, size: int) -> None:
        """So many bytes of its body are there. Raises Overloaded."""

    def admitted(self, model: str, prompt_tokens: int, position: int) -> None:
        """An engine took it, and counted the tokens of its prompt."""

    def began(self) -> None:
        """Its prompt is read: it waits no longer."""

    def entered(self) -> None:
        """It has a slot."""
        self.phase = "prefill"

    def used(self, tokens: int) -> None:
        """It generated so many tokens more."""

    def left(self, *, waiting: bool) -> float | None:
        """Seconds it may still take, None for as long as it likes; `waiting`: for a slot."""
        del waiting
        return None

    def cancel(self, error: IngleError) -> None:
        """End the request with this error, wherever it is. Only the first one counts."""
        if self._ended_by is not None:
            return
        self._ended_by = error
        if self._work is not None:
            self._work.cancel()
        if self._on_end is not None:
            self._on_end()

    async def ended(self) -> None:
        """Returns when it was cancelled, wherever it is. Of one who waits."""
        over = asyncio.Event()
        self._on_end = over.set
        if self._ended_by is None:
            await over.wait()

    @contextmanager
    def working(self) -> Iterator[None]:
        """While its client or its engine is waited for. Raises what it was ended with."""
        if self._ended_by is not None:
            raise self._ended_by
        self._work = task = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if self._ended_by is None or task is None or task.uncancel():
                raise
            raise self._ended_by from None
        finally:
            self._work = None

    def late(self, *, waiting: bool) -> IngleError:
        """Why it is ended when none are left."""
        del waiting
        return DeadlineExceeded("The answer took longer than it may.")


NOBODYS = Place()


async def in_time(work: Coroutine[Any, Any, T], place: Place, *, waiting: bool) -> T:
    """Its result, while the request may wait for it. Raises what `late` says."""
    left = place.left(waiting=waiting)
    if left is not None and left <= 0:
        work.close()
        raise place.late(waiting=waiting)
    with place.working():
        if left is None:
            return await work
        try:
            async with asyncio.timeout(left):
                return await work
        except TimeoutError:
            raise place.late(waiting=waiting) from None


async def within(
    events: AsyncGenerator[list[EngineEvent]], place: Place, *, waiting: bool
) -> list[EngineEvent]:
    """What comes next. See `in_time`."""
    return await in_time(anext(events), place, waiting=waiting)
