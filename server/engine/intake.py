"""From a frame to a sequence, off the step loop: checks, tokens, compiled grammar."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable

from server.core.errors import ContextOverflow, IngleError, InvalidRequest
from server.core.protocol import Compiled, ModelRunner
from server.core.types import Admitted, Failed, GenerateRequest, TextPiece

from .compiling import AT_ONCE, Compiling
from .frames import Cancel, Detokenize, EnginePipe, Go, Leave, Pause, StepFrame, Submit, Tokenize
from .reading import refusal
from .sequence import Sequence
from .tokens import answer

log = logging.getLogger("ingle.engine")

Message = Sequence | Cancel | Pause | Go | Leave
"""What the step loop is told."""

FAR_TOO_LONG = 2
"""A prompt of more than so many contexts is refused without counting its tokens."""
MAX_LOGPROBS = 1000
COMPILER_STACK = 64 << 20
"""Bytes, of address space."""


class Intake:
    """One thread reads the pipe; what has a grammar that is new goes on in others.

    A grammar may take seconds until it is refused; those without one do not wait for it. The
    process ends with any of the threads: without them requests would wait for ever.
    """

    def __init__(
        self,
        pipe: EnginePipe,
        runner: ModelRunner,
        inbox: queue.SimpleQueue[Message],
        *,
        drafts: bool,
        position: Callable[[], int],
    ) -> None:
        """`position` that one more would have in the queue."""
        self._pipe = pipe
        self._runner = runner
        self._inbox = inbox
        self._drafts = drafts
        self._position = position
        self.sequences = 0
        """Put in the inbox so far."""
        self._counting = threading.Lock()
        self._context = runner.info.context
        self._tokenised: tuple[tuple[TextPiece, ...], list[int]] = (), []
        self._compiling = Compiling(runner.compile, self._compiled)

    def start(self) -> None:
        # llguidance descends into schemas on the stack; what it was checked with has less of it.
        threading.stack_size(COMPILER_STACK)
        for work in (self._read, *[self._compiling.work] * AT_ONCE):
            threading.Thread(target=_for_life, args=(work,), daemon=True).start()
        threading.stack_size(0)

    def _read(self) -> None:
        while (command := self._pipe.receive()) is not None:
            if isinstance(command, Cancel):
                self._compiling.drop(command.id)
                self._inbox.put(command)
            elif isinstance(command, Pause | Go | Leave):
                self._inbox.put(command)
            elif isinstance(command, Submit):
                self._take(command.request)
            elif isinstance(command, Tokenize | Detokenize):
                self._pipe.send(StepFrame((answer(self._runner, command),)))
            else:
                self._pipe.send(refusal(command, self._runner.info))

    def _take(self, request: GenerateRequest) -> None:
        try:
            sequence = self._checked(request)
        except IngleError as error:
            self._refuse(request.id, error)
            return
        sequence.grammar = self._runner.compiled(request.grammar) if request.grammar else None
        if request.grammar and sequence.grammar is None:
            self._compiling.put(sequence)
        else:
            self._admit(sequence)

    def _compiled(self, sequence: Sequence, outcome: Compiled | IngleError) -> None:
        """From a thread that compiles."""
        if isinstance(outcome, IngleError):
            self._refuse(sequence.id, outcome)
        else:
            sequence.grammar = outcome
            self._admit(sequence)

    def _admit(self, sequence: Sequence) -> None:
        admitted = Admitted(sequence.id, sequence.prompt_length, self._position())
        self._pipe.send(StepFrame((admitted,)))
        with self._counting:
            self.sequences += 1
        self._inbox.put(sequence)

    def _refuse(self, request_id: str, error: IngleError) -> None:
        self._pipe.send(StepFrame((Failed.of(request_id, error),)))

    def _checked(self, request: GenerateRequest) -> Sequence:
        self._runner.check(request.sampling)
        self._check_tokens(request)
        least = self._runner.fewest_tokens(request.prompt)
        if least >= FAR_TOO_LONG * self._context:
            raise ContextOverflow.of(least, self._context, param=request.prompt_name, at_least=True)
        prompt = self._tokens(request)
        resumed = len(request.resume.tokens) if request.resume else 0
        if not prompt or len(prompt) + resumed >= self._context:
            raise ContextOverflow.of(len(prompt), self._context, param=request.prompt_name)
        sequence = Sequence(request, list(prompt), time.monotonic())
        if self._drafts:
            sequence.drafter.index(sequence.tokens)
        return sequence

    def _check_tokens(self, request: GenerateRequest) -> None:
        size = self._runner.info.vocabulary
        for param, tokens in (
            (request.prompt_name, request.prompt_tokens),
            ("stop_token_ids", request.stop_tokens),
            ("shown_tokens", request.shown_tokens),
            ("resume", request.resume.tokens if request.resume else ()),
            ("logit_bias", request.sampling.logit_bias),
        ):
            wrong = next((token for token in tokens if not 0 <= token < size), None)
            if wrong is not None:
                raise InvalidRequest(
                    f"'{param}' holds token {wrong}; this model's go from 0 to {size - 1}.",
                    param=param,
                )
        if request.logprobs is not None and not 0 <= request.logprobs <= MAX_LOGPROBS:
            raise InvalidRequest(
                f"'logprobs' must be between 0 and {MAX_LOGPROBS}.", param="logprobs"
            )
        if request.max_tokens is not None and request.max_tokens < 0:
            raise InvalidRequest("'max_tokens' must not be negative.", param="max_tokens")

    def _tokens(self, request: GenerateRequest) -> list[int]:
        """Tokenised once for all choices of a request, which come one after the other."""
        if request.prompt_tokens:
            return list(request.prompt_tokens)
        if self._tokenised[0] != request.prompt:
            self._tokenised = request.prompt, self._runner.tokenize(request.prompt)
        return self._tokenised[1]


def _for_life(work: Callable[[], None]) -> None:
    try:
        work()
        os._exit(0)
    except BaseException:  # what Rust panics with is no Exception
        log.exception("a thread of the engine failed")
        os._exit(1)
