"""One client's connection: how long a request may take to come, how much its head may hold, and an
answer to all that is no HTTP. The rest is uvicorn's and httptools'.

Each refusal is an error as the API gives them; then the connection closes, once it can be read.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, TypeVarTuple, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from server.core.errors import (
    HeadersTooLarge,
    IngleError,
    MalformedRequest,
    Overloaded,
    RequestTimedOut,
)

from .errors import code_of, response_of
from .head import Head, Upgrades, check_head

log = logging.getLogger("ingle.http")
Args = TypeVarTuple("Args")

MAX_PIPELINED = 32
"""Requests of one connection that wait for the answers before theirs."""
IDLE_SECONDS = 75.0
"""Above the 60 s and less after which clients and proxies drop idle connections themselves."""
HEAD_SECONDS = 10.0
"""From a request's first byte to the end of its headers."""
BODY_SECONDS = 30.0
"""Between two pieces of a body; and for all of it, beside what `SLOWEST_LINK` grants."""
SLOWEST_LINK = 16 << 10
"""Bytes, each so many of which give a body one more second: 32 MiB may take half an hour to come,
and what drips is ended after 30 s."""
STALLED_SECONDS = 30.0
"""A client that takes nothing of its answer for so long is taken to be gone."""
LINGER_SECONDS = 5.0
"""For a client that still sends to read why it should not: closing at once would take the answer
out of its hands."""


class _Stage(Enum):
    IDLE = auto()
    """No request is coming in; the last may still be answered."""
    HEAD = auto()
    BODY = auto()
    REFUSED = auto()
    """Answers are still owed for what came before."""
    LEAVING = auto()
    GONE = auto()


class _Flow(FlowControl):
    """Reads no further while a body waits for its turn; else it does, to hear who leaves."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.transport)
        self._pipeline = connection.pipeline

    def resume_reading(self) -> None:
        if not self._pipeline or len(self._pipeline[0][0].body) <= HIGH_WATER_LIMIT:
            super().resume_reading()


class _Closing:
    """The transport as the answers know it."""

    def __init__(self, connection: Connection) -> None:
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing
        self.close = connection.leave


class Connection(HttpToolsProtocol):
    """`end_overdue` is to be called about once a second, `make_room` is with all there are.

    `make_room` raises Overloaded when the newest cannot be served. `on_refused` is told the status
    of each refusal from here.
    """

    def __init__(
        self,
        *args: Any,
        make_room: Callable[[set[Connection]], None],
        on_refused: Callable[[int], None],
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self._make_room = make_room
        self._on_refused = on_refused
        self._stage = _Stage.IDLE
        self._since = self._heard_at = self._checked_at = self.loop.time()
        self._received = 0  # since the stage began
        self._head = Head()
        self._upgrades = Upgrades()
        self._wrong: IngleError | None = None  # what a callback of the parser found
        self._owed: IngleError | None = None  # a refusal whose turn comes later
        self._active: RequestResponseCycle | None = None
        self._keeps_alive = True
        self._untaken = 0
        self._untaken_since = self._since

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(self)
        self._closing = cast(Any, _Closing(self))
        try:
            self._make_room(cast("set[Connection]", self.connections))
        except Overloaded as error:
            self._refuse(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up()
        super().connection_lost(exc)
        self._stage = _Stage.GONE
        # What refers to it would else be kept until all of memory is looked through.
        self.transport = self.flow = self.cycle = self._active = self._closing = cast(Any, None)

    @property
    def idle_since(self) -> float | None:
        """Of the loop's seconds; None while there is something to do."""
        idle = self._stage is _Stage.IDLE and self._is_answered and not self.transport.is_closing()
        return self._since if idle else None

    @property
    def _is_answered(self) -> bool:
        return self._active is None or self._active.response_complete

    def _enter(self, stage: _Stage) -> None:
        self._stage = stage
        self._since = self._heard_at
        self._received = 0

    # What comes

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        if self._stage in (_Stage.REFUSED, _Stage.LEAVING):
            return
        self._received += len(data)
        self._head.received(len(data))
        if self._stage is not _Stage.BODY:
            data = self._upgrades.decline(data)
        try:
            self.parser.feed_data(data)
            self._head.check_unseen()
        except httptools.HttpParserError as error:
            self._refuse(self._wrong or MalformedRequest(f"This is no HTTP request: {error}."))
        except HeadersTooLarge as error:
            self._refuse(error)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._enter(_Stage.HEAD)
        self._head.begin()

    def on_url(self, url: bytes) -> None:
        self._seen(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._seen(len(name) + len(value) + 4)
        if self._stage is _Stage.HEAD:  # else it is a trailer, and nobody's
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._seen()
        self._check(check_head, self.parser, self.url, self.headers)
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False
        super().on_headers_complete()
        self._enter(_Stage.BODY)  # not before: until now the cycle is the last request's
        self.flow.resume_reading()
        cycle = self.cycle
        cycle.transport = self._closing
        self._keeps_alive = cycle.keep_alive
        if self.expect_100_continue:  # a refusal leaves open whether the body comes
            cycle.keep_alive = False
        self._check(self._check_pipeline)

    def _check_pipeline(self) -> None:
        if len(self.pipeline) > MAX_PIPELINED:
            raise MalformedRequest(
                f"Over {MAX_PIPELINED} requests wait on this connection. Use several."
            )

    def on_body(self, body: bytes) -> None:
        self._head.unseen = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._seen()
        self._enter(_Stage.IDLE)
        if self.expect_100_continue:
            self.cycle.keep_alive = self._keeps_alive
        super().on_message_complete()

    def _seen(self, size: int = 0) -> None:
        self._check(self._head.seen, size)

    def _check(self, check: Callable[[*Args], None], *args: *Args) -> None:
        """The parser, which calls this, would let nothing of an error through but that it was."""
        try:
            check(*args)
        except IngleError as error:
            self._wrong = error
            raise

    # What goes

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._stage is _Stage.LEAVING:
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._owed is not None:
            self._say(self._owed)
        elif self._stage is _Stage.IDLE:
            self._since = self.loop.time()
        self.flow.resume_reading()

    def _refuse(self, error: IngleError) -> None:
        """Read no more. `error` is the answer to this request, after those to earlier ones."""
        broken = self.cycle if self._stage is _Stage.BODY else None
        if broken is not None and broken is self._active:
            if broken.response_started:
                self._linger()
            else:
                self._say(error)
            return
        if self.pipeline and self.pipeline[0][0] is broken:
            self.pipeline.popleft()
        if self._is_answered:
            self._say(error)
        else:
            self._enter(_Stage.REFUSED)
            self._owed = error

    def _say(self, error: IngleError) -> None:
        response = response_of(error)
        self._on_refused(response.status_code)
        log.info("refused", extra={"status": response.status_code, "error": code_of(error)})
        given = [*self.server_state.default_headers, *response.raw_headers]
        given.append((b"x-request-id", b"req_" + secrets.token_hex(12).encode()))
        headers = [b"%b: %b\r\n" % pair for pair in given if pair[0] != b"connection"]
        head = b"".join([STATUS_LINE[response.status_code], *headers, b"connection: close\r\n\r\n"])
        self.transport.write(head + response.body)
        self._linger()

    def leave(self) -> None:
        """Close; after what was written, and when the client is done sending."""
        if self._stage is _Stage.BODY:
            self._linger()
        elif self._stage is not _Stage.GONE:
            self.transport.close()

    def _linger(self) -> None:
        self._enter(_Stage.LEAVING)
        self._since = self.loop.time()
        self._hang_up()
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.transport.write_eof()

    def shutdown(self) -> None:
        if self._stage is _Stage.LEAVING:
            self.transport.close()
        else:
            super().shutdown()

    def _hang_up(self) -> None:
        """Nobody reads the answers that are not complete."""
        self.pipeline.clear()
        if self._active is not None and not self._active.response_complete:
            self._active.disconnected = True
            self._active.message_event.set()

    def end_overdue(self) -> None:
        """Refuse what has been coming in for too long; close what is idle, abort what is stuck."""
        if self._stage is _Stage.GONE:
            return
        now = self.loop.time()
        if self._is_waited_for:
            self._since += now - self._checked_at
            self._heard_at = now
        self._checked_at = now
        waited = now - self._since
        if self._takes_nothing(now) or (self._stage is _Stage.LEAVING and waited > LINGER_SECONDS):
            self.transport.abort()
        elif self._stage is _Stage.HEAD and waited > HEAD_SECONDS:
            self._refuse(_timed_out("headers", HEAD_SECONDS))
        elif self._stage is _Stage.BODY and (
            now - self._heard_at > BODY_SECONDS
            or waited > BODY_SECONDS + self._received / SLOWEST_LINK
        ):
            self._refuse(_timed_out("body", BODY_SECONDS))
        elif self.idle_since is not None and waited > IDLE_SECONDS:
            self.transport.close()

    @property
    def _is_waited_for(self) -> bool:
        """Whether what is missing of a request has not been asked for."""
        asked = self._stage is not _Stage.BODY or not self.cycle.waiting_for_100_continue
        return self.flow.read_paused or not asked

    def _takes_nothing(self, now: float) -> bool:
        untaken = self.transport.get_write_buffer_size()
        if not untaken or untaken != self._untaken:
            self._untaken, self._untaken_since = untaken, now
        return now - self._untaken_since > STALLED_SECONDS


def _timed_out(part: str, seconds: float) -> RequestTimedOut:
    return RequestTimedOut(f"The request's {part} took too long to come, over {seconds:g} s.")
