"""What an engine process owes: each request, how far it was told of, and where another goes on."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from server.core.types import (
    Admitted,
    Embedded,
    EngineEvent,
    Failed,
    Finished,
    GenerateRequest,
    PromptScored,
    Resume,
    Started,
    TokenDelta,
)

from .frames import Detokenize, Embed, Submit, Tokenize

Owed = Submit | Embed | Tokenize | Detokenize

CLEARING = 2
"""Deltas after which a suspect has gone further than it was: of its last frame's tokens its client
may not have been told, and the second delta has those of a whole frame."""


PILE_BYTES = 64 << 10
"""Of events that nobody took, above which a request's engine leaves it out. What was taken last,
the frames made of it and what the HTTP server holds are as much again each."""
_TOKEN_BYTES = 64
_SCORE_BYTES = 256
"""About what they take in memory."""


class Channel:
    """The events of the requests of one call, from the dispatcher to its iterator."""

    def __init__(self, request_ids: set[str]) -> None:
        self.open = request_ids
        self.paused: set[str] = set()
        """Those of `open` that their engine leaves out until these events are taken."""
        self._events: list[EngineEvent] = []
        self._bytes = 0
        self._arrived = asyncio.Event()

    def put(self, event: EngineEvent) -> bool:
        """Whether too much has piled up. Who reads what comes has taken it before more comes."""
        full = self._bytes > PILE_BYTES
        self._events.append(event)
        if isinstance(event, TokenDelta):
            self._bytes += _size(event)
        self._arrived.set()
        return full

    async def take(self) -> list[EngineEvent]:
        """All that arrived, at least one event. Raises the error of a failed request."""
        await self._arrived.wait()
        self._arrived.clear()
        events, self._events, self._bytes = self._events, [], 0
        for event in events:
            if isinstance(event, Finished | Failed):
                self.open.discard(event.id)
            if isinstance(event, Failed):
                raise event.exception()
        return events


def _size(delta: TokenDelta) -> int:
    scores = sum(1 + len(scored.top) for scored in delta.logprobs)
    return len(delta.text) + _TOKEN_BYTES * len(delta.tokens) + _SCORE_BYTES * scores


class Ongoing:
    """One request from its submission to its last event, across engine processes."""

    def __init__(self, command: Owed, channel: Channel) -> None:
        self._command = command
        self._id = command.id if isinstance(command, Tokenize | Detokenize) else command.request.id
        self._channel = channel
        self.admitted = False
        self._started = False
        self.crashes = 0
        """Engine processes that ended while they computed or read it."""
        self.suspect = False
        """Whether it may have been the cause, as far as is known."""
        self.unread = False
        """Whether it was being read when a process ended."""
        self._begun = False
        """Whether it has a slot in the process that is there."""
        self._spared = False
        self._deltas = 0
        self._prompt_scored = False
        self._tokens: list[int] = []
        self._scored = 0
        self._told = 0
        self._draws = 0
        self._vectors = 0

    def crash(self, *, blamed: bool) -> None:
        """A process ended that held it; `blamed`: no other request is. While it waits for a slot it
        can do no harm."""
        if blamed:
            waited = self.admitted and not self._begun and isinstance(self._command, Submit)
            self.suspect = not waited
            self.crashes += self.suspect
            self.unread = not self.admitted
        elif self._begun:
            self.crashes += self._spared
            self._spared = True
        self._begun, self._deltas = False, 0

    def clears(self, event: EngineEvent) -> bool:
        """Whether this says that it got further than when a process ended."""
        match event:
            case Admitted():
                return self.suspect and self.unread
            case Started():
                return False
            case TokenDelta() | PromptScored():
                self._deltas += 1
                return self.suspect and self._deltas >= CLEARING
            case _:
                return self.suspect

    @property
    def owing(self) -> bool:
        """Whether its engine is to make progress with it."""
        return self.admitted and not self.paused

    @property
    def paused(self) -> bool:
        return self._id in self._channel.paused

    def put(self, event: EngineEvent) -> bool:
        """Pass on what its client has not been told yet. Whether it is to be paused for now."""
        match event:
            case Admitted():
                if self.admitted:
                    return False
                self.admitted = True
            case Started():
                self._begun = True
                if self._started:
                    return False
                self._started = True
            case TokenDelta():
                self._tokens += event.tokens
                self._scored += len(event.logprobs)
                self._told += len(event.text)
                self._draws = event.draws
            case PromptScored():
                self._prompt_scored = True
            case Embedded():
                self._vectors += event.count
            case _:
                pass
        full = self._channel.put(event)
        if not full or self.paused or not isinstance(event, TokenDelta):
            return False
        self._channel.paused.add(event.id)
        return True

    def rest(self) -> Owed:
        """What to ask of the next process, which pauses nothing until it is told to."""
        command = self._command
        self._channel.paused.discard(self._id)
        if isinstance(command, Submit) and self.admitted:
            return Submit(replace(command.request, resume=self._resume(command.request)))
        if isinstance(command, Embed) and self._vectors:
            texts, tokens = command.request.texts, command.request.tokens
            rest = replace(
                command.request, texts=texts[self._vectors :], tokens=tokens[self._vectors :]
            )
            return Embed(rest)
        return command

    def _resume(self, request: GenerateRequest) -> Resume:
        """Tokens whose scores are owed are chosen again: their text was not sent yet."""
        kept = len(self._tokens)
        if request.logprobs is not None:
            kept = min(kept, self._scored)
        draws = max(0, self._draws - (len(self._tokens) - kept))
        return Resume(tuple(self._tokens[:kept]), draws, self._told, self._prompt_scored)
