"""Who may come in: so many requests, and so many tokens of prompts that wait.

Counted before a body is read or parsed, so that a burst costs nothing.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.core.errors import (
    DeadlineExceeded,
    IngleError,
    Overloaded,
    RateLimited,
    ShuttingDown,
)
from server.core.stats import AdmissionSink, Refusal

from .drain import Drain
from .place import Place
from .quotas import Quotas

MOST_SECONDS = 30.0
"""That anybody is sent away for; SDKs do not wait for much longer."""
LEAST_SECONDS = 0.1
KEPT_FOR_OTHERS = 8
"""One in so many places, where there are several keys: one that asks all the time would take each
place that comes free, and another, told to come back, would never find any."""
SHORT_PROMPT = 256
"""Tokens. Who asks for no more is let in whatever waits: the requests are counted too."""

_REQUEST_GUESS = 0.25
_TOKEN_GUESS = 0.005
"""Seconds, until the first one is measured."""


class Admission:
    """All inside, by what they wait for. Those refused are told when there should be room for them.

    As many requests are inside as there are `slots`, and `max_waiting` more; a request counts once,
    whatever its `n`. Their prompts that are not read yet have `most_tokens` together; one of them
    may have more.
    """

    def __init__(
        self,
        max_waiting: int,
        *,
        slots: Callable[[], int] = lambda: 0,
        most_tokens: Callable[[], float] = lambda: math.inf,
        quotas: Quotas | None = None,
        queue_seconds: float | None = None,
        request_seconds: float | None = None,
        stats: AdmissionSink | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.change(max_waiting, queue_seconds=queue_seconds, request_seconds=request_seconds)
        self._slots = slots
        self._most_tokens = most_tokens
        self.quotas = quotas or Quotas(None, None)
        self._stats = stats
        self._clock = clock
        self._requests = Drain(_REQUEST_GUESS)
        self._tokens = Drain(_TOKEN_GUESS)
        self._by_model: dict[str, Drain] = {}
        self._at_model: dict[str, int] = {}
        self._size = _Size()
        self._refused = 0
        self._refused_tokens = 0
        self._empty = asyncio.Event()
        self.asked = 0
        """Requests, let in or not."""
        self.inside = 0
        self.waiting_tokens = 0
        self.closed = False

    def change(
        self, max_waiting: int, *, queue_seconds: float | None, request_seconds: float | None
    ) -> None:
        """The limits from now on, of those inside too."""
        self._max_waiting = max_waiting
        self._queue_seconds = queue_seconds or math.inf
        self._request_seconds = request_seconds or math.inf

    def close(self) -> None:
        """Let nobody in any more."""
        self.closed = True
        if not self.inside:
            self._empty.set()

    async def emptied(self) -> None:
        """Returns when it is closed and all have left."""
        await self._empty.wait()

    @contextmanager
    def admit(self, scope: str = "", length: int = 0) -> Iterator[Place]:
        """A place for one request whose body is announced to have `length` bytes, 0 for unknown.

        Raises ShuttingDown, RateLimited, or Overloaded.
        """
        place = self._enter(scope, length)
        try:
            yield place
        finally:
            self._leave(place)

    def headers(self, scope: str) -> dict[str, str]:
        """What is left of the quotas of a key, where it has any."""
        return self.quotas.headers(scope, self._clock())

    def _enter(self, scope: str, length: int) -> _Counted:
        self.asked += 1
        if self.closed:
            raise ShuttingDown("The server is shutting down. Please try again shortly.")
        now = self._clock()
        try:
            self.quotas.check(scope, now)
        except RateLimited as limited:
            self._note("key_tokens" if limited.kind == "tokens" else "key_requests")
            raise
        if self._is_full(scope):
            raise self._full()
        place = _Counted(self, scope, now)
        self._check_tokens(place, self._size.tokens(length))
        if not self.inside:
            self._requests.begin(now)
        self.inside += 1
        self.quotas.enter(scope)
        return place

    def _is_full(self, scope: str) -> bool:
        """Of several keys none may take the last places from the others."""
        places = max(1, self._slots() + self._max_waiting)
        mine = self.quotas.inside(scope)
        kept = places // KEPT_FOR_OTHERS if self.quotas.scopes > 1 else 0
        return self.inside >= (places - kept if mine >= kept else places)

    def _leave(self, place: _Counted) -> None:
        now = self._clock()
        if place.model is None:
            self.quotas.take(place.scope, -place.tokens, now)
        else:
            self._at_model[place.model] -= 1
            self._by_model[place.model].done(now)
        self._wait_for(place, 0)
        self.quotas.leave(place.scope)
        self.inside -= 1
        self._refused = max(0, self._refused - 1) if self.inside else 0
        self._requests.done(now)
        if self.closed and not self.inside:
            self._empty.set()

    # What places tell of themselves

    def claim(self, place: _Counted, size: int) -> None:
        """So many bytes of its body are there, and their prompt will wait. Raises Overloaded."""
        place.size = max(place.size, size)
        tokens = self._size.tokens(place.size)
        if tokens > place.tokens:
            self._check_tokens(place, tokens)
            self._correct(place, tokens)

    def _check_tokens(self, place: _Counted, tokens: int) -> None:
        """What is only announced takes no room from others: it may never come."""
        others = self.waiting_tokens - place.waiting
        if tokens > SHORT_PROMPT and others and others + tokens > self._most_tokens():
            raise self._too_long(others + tokens, tokens)

    def admitted(self, place: _Counted, model: str, tokens: int, position: int) -> None:
        now = self._clock()
        self._size.learn(place.size, tokens)
        self._correct(place, tokens)
        drain = self._by_model.setdefault(model, Drain(_REQUEST_GUESS))
        others = self._at_model.get(model, 0)
        if not others:
            drain.begin(now)
        self._at_model[model] = others + 1
        place.model, place.position = model, position
        place.prompt_tokens = tokens
        if place.phase == "loading":  # else it was told at once that it has a slot
            place.phase = "queued"
        if position and drain.measured:
            place.estimate = position * drain.seconds

    def began(self, place: _Counted) -> None:
        if place.waiting:
            self._tokens.done(self._clock(), place.waiting)
            self._refused_tokens = max(0, self._refused_tokens - place.waiting)
            self._wait_for(place, 0)

    def used(self, place: _Counted, tokens: int) -> None:
        self.quotas.take(place.scope, tokens, self._clock())

    def left(self, place: _Counted, *, waiting: bool) -> float | None:
        most = min(self._request_seconds, self._queue_seconds if waiting else math.inf)
        return None if most == math.inf else most - (self._clock() - place.since)

    def late(self, *, waiting: bool) -> IngleError:
        if not waiting or self._request_seconds <= self._queue_seconds:
            return DeadlineExceeded(
                f"The answer took longer than this server allows, {self._request_seconds:g} s."
                " Ask for fewer tokens."
            )
        self._note("queue_seconds")
        return _overloaded(
            f"The server is busy: no slot came free within {self._queue_seconds:g} s.",
            self._requests.seconds * (self._refused + 1),
        )

    def _correct(self, place: _Counted, tokens: int) -> None:
        """What was taken to be its prompt's length."""
        self.quotas.take(place.scope, tokens - place.tokens, self._clock())
        place.tokens = tokens
        self._wait_for(place, tokens)

    def _wait_for(self, place: _Counted, tokens: int) -> None:
        if not self.waiting_tokens:
            self._tokens.begin(self._clock())
            self._refused_tokens = 0
        self.waiting_tokens += tokens - place.waiting
        place.waiting = tokens
        if self._stats is not None:
            self._stats.on_waiting_tokens(self.waiting_tokens)

    def _full(self) -> Overloaded:
        """The nth to be refused comes back after n have left, as fast as they leave now."""
        self._note("requests")
        self._refused += 1
        return _overloaded(
            "The server is busy: its waiting queue is full.",
            self._requests.seconds * self._refused,
        )

    def _too_long(self, wanted: int, tokens: int) -> Overloaded:
        """It comes back when the prompts before it were read, and those refused before it."""
        self._note("tokens")
        self._refused_tokens += tokens
        over = wanted + self._refused_tokens - tokens - self._most_tokens()
        return _overloaded(
            "The server is busy: too many tokens of prompts are waiting to be read.",
            self._tokens.seconds * over,
        )

    def _note(self, why: Refusal) -> None:
        if self._stats is not None:
            self._stats.on_refused(why)


class _Counted(Place):
    """`tokens` are its prompt's, as far as they are known; `waiting` of them wait to be read."""

    def __init__(self, admission: Admission, scope: str, since: float) -> None:
        self._admission = admission
        self.scope = scope
        self.since = since
        self.size = 0
        self.tokens = 0
        self.waiting = 0
        self.model: str | None = None

    def read(self, size: int) -> None:
        self._admission.claim(self, size)

    def admitted(self, model: str, prompt_tokens: int, position: int) -> None:
        self._admission.admitted(self, model, prompt_tokens, position)

    def began(self) -> None:
        self.phase = "decode"
        self._admission.began(self)

    def used(self, tokens: int) -> None:
        self.generated += tokens
        self._admission.used(self, tokens)

    def left(self, *, waiting: bool) -> float | None:
        return self._admission.left(self, waiting=waiting)

    def late(self, *, waiting: bool) -> IngleError:
        return self._admission.late(waiting=waiting)


class _Size:
    """How many tokens a body of so many bytes asks a model to read: learned from those counted.

    Starts above what text has, so that too little is let in rather than too much.
    """

    _KEPT = 0.9
    _MOST_WEIGHT = 64 << 10
    """Bytes: no single body decides."""
    _LEAST, _MOST = 0.1, 1.0

    def __init__(self) -> None:
        self._tokens, self._bytes = 6400.0, 16000.0

    def tokens(self, size: int) -> int:
        ratio = min(max(self._tokens / self._bytes, self._LEAST), self._MOST)
        return math.ceil(size * ratio)

    def learn(self, size: int, tokens: int) -> None:
        if not size:
            return
        weight = min(size, self._MOST_WEIGHT)
        self._tokens = self._KEPT * self._tokens + tokens * weight / size
        self._bytes = self._KEPT * self._bytes + weight


def _overloaded(message: str, seconds: float) -> Overloaded:
    """Those who would wait too long are spread, or they would come back together."""
    if seconds > MOST_SECONDS:
        half = MOST_SECONDS / 2
        seconds = half + seconds % half
    error = Overloaded(f"{message} Please try again shortly.")
    error.retry_after = max(seconds, LEAST_SECONDS)
    return error
