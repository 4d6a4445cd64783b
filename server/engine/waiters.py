"""Those that wait for a model to be in memory, and are let in together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from server.core.errors import IngleError

from .residency import Residency


@dataclass(eq=False)
class _Waiter:
    since: float
    turn: asyncio.Future[None]


class Waiters:
    """By model. `Residency` is told of each one that comes, enters or gives up."""

    def __init__(self, residency: Residency) -> None:
        self._residency = residency
        self._waiting: dict[str, list[_Waiter]] = {}

    async def turn(self, name: str, now: float) -> None:
        """Returns inside. Raises what `refuse` says; who is cancelled has given up."""
        waiter = _Waiter(now, asyncio.get_running_loop().create_future())
        self._residency.wait(name, now)
        self._waiting.setdefault(name, []).append(waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            self._give_up(name, waiter, now)
            raise

    def _give_up(self, name: str, waiter: _Waiter, now: float) -> None:
        """It may have been let in, or refused, just before."""
        if waiter in self._waiting.get(name, ()):
            self._waiting[name].remove(waiter)
            self._residency.give_up(name, waiter.since)
        elif not waiter.turn.cancelled() and waiter.turn.exception() is None:
            self._residency.leave(name, now)

    def let_in(self, name: str, now: float) -> None:
        """All of them; nobody while the model is being emptied."""
        if not self._residency[name].open:
            return
        for waiter in self._waiting.pop(name, ()):
            self._residency.give_up(name, waiter.since)
            if not waiter.turn.done():
                self._residency.enter(name, now)
                waiter.turn.set_result(None)

    def refuse(self, name: str, error: IngleError) -> None:
        """Residency knows that they are gone."""
        for waiter in self._waiting.pop(name, ()):
            if not waiter.turn.done():
                waiter.turn.set_exception(error)

    def refuse_all(self, error: IngleError) -> None:
        for name in list(self._waiting):
            self.refuse(name, error)
