"""Which inputs are computed next: requests take turns, so that no long list holds up a short one.

Pure. Scopes (API keys) take turns, and in each its requests do, one input a turn.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from server.core.types import EmbedRequest


@dataclass(eq=False)
class Job:
    """One request. `inputs` are the token ids of those tokenised; `taken` of them were batched."""

    request: EmbedRequest
    arrived: float
    inputs: list[array[int]] = field(default_factory=list)
    taken: int = 0
    started: float | None = None
    cancelled: bool = False

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def tokens(self) -> int:
        return sum(map(len, self.inputs))

    @property
    def exhausted(self) -> bool:
        return self.taken == len(self.inputs)


class Turns:
    def __init__(self) -> None:
        self._scopes: deque[deque[Job]] = deque()
        self._by_scope: dict[str, deque[Job]] = {}

    def __iter__(self) -> Iterator[Job]:
        return (job for jobs in self._scopes for job in jobs if not job.cancelled)

    def __bool__(self) -> bool:
        return bool(self._scopes)

    def add(self, job: Job) -> None:
        jobs = self._by_scope.get(job.request.scope)
        if jobs is None:
            jobs = self._by_scope[job.request.scope] = deque()
            self._scopes.append(jobs)
        jobs.append(job)

    def take(self, most_tokens: int, most_inputs: int) -> list[Job]:
        """Whose next input is computed now: a job as often as inputs of it are, in order.

        The first input is taken whatever its length. One that no longer fits is the next batch's
        first.
        """
        batch: list[Job] = []
        room = most_tokens
        while self._scopes and len(batch) < most_inputs:
            jobs = self._scopes[0]
            job = jobs[0]
            if not job.cancelled:
                length = len(job.inputs[job.taken])
                if batch and length > room:
                    break
                room -= length
                job.taken += 1
                batch.append(job)
            self._rotate(jobs, job)
        return batch

    def _rotate(self, jobs: deque[Job], job: Job) -> None:
        jobs.popleft()
        if not job.cancelled and not job.exhausted:
            jobs.append(job)
        self._scopes.popleft()
        if jobs:
            self._scopes.append(jobs)
        else:
            del self._by_scope[job.request.scope]
