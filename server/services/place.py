"""The place of one request inside: what it waits for, and by when it must have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from server.core.errors import IngleError
from server.core.types import EngineEvent

T = TypeVar("T")


class Place:
    """What a request tells of itself on its way. This one is nobody's: nothing is counted."""

    position = 0
    """In its model's queue when the engine took it; 0 where there was a slot at once."""
    estimate: float | None = None
    """Seconds until it should get one, once that is measured."""

    def read(self, size: int) -> None:
        """So many bytes of its body are there. Raises Overloaded."""

    def admitted(self, model: str, prompt_tokens: int, position: int) -> None:
        """An engine took it, and counted the tokens of its prompt."""

    def began(self) -> None:
        """Its prompt is read: it waits no longer."""

    def used(self, tokens: int) -> None:
        """It generated so many tokens more."""

    def left(self, *, waiting: bool) -> float | None:
        """Seconds it may still take, None for as long as it likes; `waiting`: for a slot."""
        del waiting
        return None

    def late(self, *, waiting: bool) -> IngleError:
        """Why it is ended when none are left."""
        raise NotImplementedError


NOBODYS = Place()


async def in_time(work: Coroutine[Any, Any, T], place: Place, *, waiting: bool) -> T:
    """Its result, while the request may wait for it. Raises what `late` says."""
    left = place.left(waiting=waiting)
    if left is None:
        return await work
    if left <= 0:
        work.close()
        raise place.late(waiting=waiting)
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
