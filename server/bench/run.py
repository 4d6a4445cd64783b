"""Puts a workload on a server: closed-loop clients, and the intruders among them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from server.core.errors import ConfigError

from .cases import Session, Workload
from .client import Answer, Chat, OnContent, ask
from .http import Endpoint
from .prose import TokenScale, prose

_SHORT, _LONG = 40, 240
_WARM_UP_TOKENS = 16


@dataclass(slots=True)
class Outcome:
    """What a workload brought. `arrived` is when the intruders were let in, if they were."""

    workload: Workload
    answers: list[Answer] = field(default_factory=list)
    intruders: list[Answer] = field(default_factory=list)
    started: float = 0.0
    ended: float = 0.0
    arrived: float | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask, and for which model."""

    endpoint: Endpoint
    model: str

    async def calibrate(self, seed: int = 0) -> TokenScale:
        """Learn the model's tokens a word from two usage blocks. Raises ConfigError."""
        rng = Random(f"calibrate {seed}")
        short, long = [await self._measure(prose(rng, words)) for words in (_SHORT, _LONG)]
        return TokenScale.through((_SHORT, short), (_LONG, long))

    async def warm_up(self, seed: int = 0) -> None:
        """One prompt and a few tokens that no figure counts. Raises ConfigError."""
        text = prose(Random(f"warm up {seed} {time.time_ns()}"), _LONG)
        await self._asked(text, _WARM_UP_TOKENS)

    async def run(self, workload: Workload) -> Outcome:
        outcome = Outcome(workload, started=time.perf_counter())
        gate = _Gate(workload)
        queue = iter(workload.sessions)
        clients = [
            self._client(queue, outcome.answers, gate.on_content) for _ in range(workload.clients)
        ]
        intrusion = asyncio.create_task(self._intrude(outcome, gate))
        await asyncio.gather(*clients)
        gate.open.set()
        await intrusion
        outcome.ended = time.perf_counter()
        return outcome

    async def _client(
        self, queue: Iterator[Session], answers: list[Answer], on_content: OnContent
    ) -> None:
        for session in queue:
            answers += await self._converse(session, on_content)

    async def _converse(
        self, session: Session, on_content: OnContent | None = None
    ) -> Sequence[Answer]:
        """Every turn, each after the answer to the one before; an error ends it."""
        answers: list[Answer] = []
        said = [{"role": "system", "content": session.system}] if session.system else []
        for turn in session.turns:
            said.append({"role": "user", "content": turn})
            chat = Chat(tuple(said), session.max_tokens, session.schema, session.top_logprobs)
            answer = await ask(self.endpoint, self.model, chat, on_content)
            answers.append(answer)
            if answer.error is not None:
                break
            said.append({"role": "assistant", "content": answer.text})
        return answers

    async def _intrude(self, outcome: Outcome, gate: _Gate) -> None:
        await gate.open.wait()
        if not outcome.workload.intruders:
            return
        outcome.arrived = time.perf_counter()
        each = await asyncio.gather(*map(self._converse, outcome.workload.intruders))
        outcome.intruders = [answer for answers in each for answer in answers]

    async def _measure(self, text: str) -> int:
        return await self._asked(text, 1)

    async def _asked(self, text: str, max_tokens: int) -> int:
        """The prompt's tokens by the server's count."""
        chat = Chat(({"role": "user", "content": text},), max_tokens)
        answer = await ask(self.endpoint, self.model, chat)
        if answer.usage is None or answer.error is not None:
            raise ConfigError(f"the server does not answer a plain chat: {answer.error}")
        return answer.usage.prompt_tokens


class _Gate:
    """Opens once every client is `intrude_after` chunks into its answer."""

    def __init__(self, workload: Workload) -> None:
        self.open = asyncio.Event()
        self._after = workload.intrude_after
        self._missing = workload.clients

    def on_content(self, answer: Answer) -> None:
        if len(answer.chunks) == self._after:
            self._missing -= 1
            if self._missing == 0:
                self.open.set()
