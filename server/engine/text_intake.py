"""Requests for vectors on their way in: tokenised and checked, some text of each in turn.

A thread of its own beside the reader, so that a list of a thousand texts delays neither a short
request behind it nor its own cancellation.
"""

from __future__ import annotations

import queue
from array import array
from collections import deque
from collections.abc import Callable

from server.core.errors import ContextOverflow, IngleError, InvalidRequest
from server.core.protocol import EmbedRunner
from server.core.types import TextPiece

from .turns import Job

SLICE_CHARACTERS = 16_384
"""A turn ends with the text that reaches this: some ten milliseconds."""
FAR_TOO_LONG = 8
"""A text of more than so many contexts is refused without counting its tokens. Tokenizers that
take characters apart or away make the guess a rough one."""

Answer = Callable[[Job, IngleError | None], None]
"""Called when a job is complete, or with the reason why it is refused."""


class TextIntake:
    def __init__(self, runner: EmbedRunner, answer: Answer) -> None:
        self._runner = runner
        self._context = runner.info.context
        self._answer = answer
        self._new: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._jobs: deque[Job] = deque()

    def put(self, job: Job) -> None:
        """Any thread."""
        self._new.put(job)

    def loop(self) -> None:
        while True:
            self.turn()

    def turn(self) -> None:
        """Advance one job by a slice; waits for one when there is none."""
        if not self._jobs:
            self._jobs.append(self._new.get())
        while not self._new.empty():
            self._jobs.append(self._new.get())
        job = self._jobs.popleft()
        if job.cancelled:
            return
        try:
            complete = self._advance(job)
        except IngleError as error:
            self._answer(job, error)
            return
        if complete:
            self._answer(job, None)
        else:
            self._jobs.append(job)

    def _advance(self, job: Job) -> bool:
        """Tokenise some inputs more. Whether they are all done."""
        request = job.request
        read = 0
        while read < SLICE_CHARACTERS and len(job.inputs) < len(request.texts):
            index = len(job.inputs)
            text = request.texts[index]
            read += len(text) + len(request.query or "")
            tokens = self._tokens(text, request.query, request.name_of(index))
            job.inputs.append(self._checked(tokens, request.name_of(index)))
        if request.tokens:
            job.inputs = [
                self._checked(array("i", ids), request.name_of(index))
                for index, ids in enumerate(request.tokens)
            ]
        return len(job.inputs) >= len(request.texts)

    def _tokens(self, text: str, query: str | None, name: str) -> array[int]:
        least = self._runner.fewest_tokens(text) + self._runner.fewest_tokens(query or "")
        if least > FAR_TOO_LONG * self._context:
            raise ContextOverflow.of(least, self._context, param=name, at_least=True)
        if query is None:
            return array("i", self._runner.tokenize((TextPiece(text, plain=True),)))
        return array("i", self._runner.tokenize_pair(query, text))

    def _checked(self, tokens: array[int], name: str) -> array[int]:
        if len(tokens) > self._context:
            raise ContextOverflow.of(len(tokens), self._context, param=name)
        if not tokens:
            raise InvalidRequest(f"Invalid '{name}': it holds no tokens.", param=name)
        return tokens
