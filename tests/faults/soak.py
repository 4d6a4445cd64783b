"""`make soak`: mixed requests for MINUTES (20), and something bad every half minute.

`make soak MODEL=file.gguf` serves that in place of the echo engine; what answers say is not looked
at then.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import openai
import psutil

from tests.e2e.conftest import Server, _serving

from .leaving import RESET, Client
from .ledger import LEFT, WORDS, Ledger, soon
from .table import Row

RATE = 2.0
"""Requests a second, of the echo engine."""
MODEL_RATE = 0.3
FAULT_SECONDS = 30.0
STALLED_SECONDS = 35.0
SAMPLE_SECONDS = 5.0
WARM_UP = 0.25
"""Of all samples of memory."""
GROWTH = 0.05
PATIENCE = 2.0
CARD = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 30}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "card", "schema": CARD, "strict": True}}


class Soak:
    def __init__(self, server: Server, ledger: Ledger, seconds: float) -> None:
        self._server = server
        self._ledger = ledger
        self._chance = ledger.chance
        self._until = time.monotonic() + seconds
        self.rate = RATE if ledger.known else MODEL_RATE
        self.faults: Counter[str] = Counter()
        self.memory: list[int] = []

    async def run(self) -> None:
        server = self._server
        async with (
            server.async_client(max_retries=8, timeout=120) as client,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._ask(client, group))
            group.create_task(self._break(group))
            group.create_task(self._sample())

    async def _ask(self, client: openai.AsyncOpenAI, group: asyncio.TaskGroup) -> None:
        while time.monotonic() < self._until:
            group.create_task(self._ledger.ask(client, **self._mixed()))
            await asyncio.sleep(self._chance.expovariate(self.rate))

    def _mixed(self) -> dict[str, Any]:
        chance = self._chance
        more: dict[str, Any] = {
            "words": chance.choice((3, 10, 10, 30, 120)),
            "stream": chance.random() < 0.7,
            "n": chance.choice((1, 1, 1, 2, 3)),
            "max_tokens": chance.choice((5, 30, 90)) if chance.random() < 0.4 else 150,
        }
        if chance.random() < 0.2:
            more |= {"logprobs": True, "top_logprobs": 5}
        if chance.random() < 0.15:
            name = f"{' '.join(chance.choices(WORDS, k=3))}"[:30]
            said = json.dumps({"name": name, "age": chance.randrange(100)})
            return more | {"said": said, "response_format": SCHEMA, "max_tokens": None}
        if chance.random() < 0.15 and more["stream"]:
            more["leave_after"] = chance.randrange(1, 60)
        return more

    async def _break(self, group: asyncio.TaskGroup) -> None:
        """Each kind once, then each once again, in any order."""
        kinds = (self._kill, self._freeze, self._reset, self._stall)
        deck: list[Callable[[], Coroutine[Any, Any, None]]] = []
        while True:
            await asyncio.sleep(FAULT_SECONDS)
            if time.monotonic() >= self._until - PATIENCE:
                return
            deck = deck or self._chance.sample(kinds, len(kinds))
            fault = deck.pop()
            self.faults[fault.__name__] += 1
            group.create_task(fault())

    async def _kill(self) -> None:
        self._server.engines()[0].kill()

    async def _freeze(self) -> None:
        os.kill(self._server.engines()[0].pid, signal.SIGSTOP)

    async def _reset(self) -> None:
        client = self._posted(120, stream=self._chance.random() < 0.5)
        await asyncio.sleep(self._chance.random())
        client.leave(RESET)

    async def _stall(self) -> None:
        client = self._posted(120, buffer=4096, stream=True, logprobs=True, top_logprobs=20)
        await asyncio.sleep(STALLED_SECONDS)
        client.close()

    def _posted(self, words: int, **more: Any) -> Client:
        said = self._ledger.canary(words)
        entry = self._ledger.open(said)
        entry.ends, entry.accepted = [LEFT], True
        return Client(self._server, said, **more)

    async def _sample(self) -> None:
        process = psutil.Process(self._server.process.pid)
        while time.monotonic() < self._until:
            self.memory.append(process.memory_info().rss)
            await asyncio.sleep(SAMPLE_SECONDS)

    @property
    def growth(self) -> float:
        """Of the API's memory from the end of the warm-up to the end, by a straight line."""
        after = self.memory[int(len(self.memory) * WARM_UP) :]
        slope, start = statistics.linear_regression(range(len(after)), after)
        return slope * len(after) / start


def rows(minutes: float, model: str | None) -> list[Row]:
    knobs = f"echo={model or 'echo:rate=100,prefill=5000'}"
    with _serving() as start:
        server = start(knobs, slots=4, ctx=2048, watchdog_seconds=PATIENCE)
        ledger = Ledger(server, random.Random(), known=model is None)
        soak = Soak(server, ledger, minutes * 60)
        asyncio.run(soak.run())
        injected = soak.faults["_kill"] + soak.faults["_freeze"]
        asyncio.run(soon(lambda: server.metric("ingle_engine_restarts_total") >= injected, 30))
        restarts = int(server.metric("ingle_engine_restarts_total"))
        try:
            ledger.check()
        except AssertionError:
            sys.stderr.write(server.log())
            raise
    ends = Counter(entry.outcome for entry in ledger.entries)
    lost = ends["error"] + ends["refused"]
    faults = ", ".join(f"{count} × {name.strip('_')}" for name, count in soak.faults.items())
    return [
        Row(f"minutes of {soak.rate:g} requests a second ({faults})", f"{minutes:g}", "", True),
        Row(f"answers complete, of {len(ledger.entries) - ends[LEFT]}",
            f"{ends['stop'] + ends['length']}", "all", not lost),
        Row("engine restarts", f"{restarts}", f"{injected}", restarts == injected),
        Row("growth of the server's memory", f"{soak.growth:.1%}", f"≤ {GROWTH:.0%}",
            soak.growth <= GROWTH),
        Row("open files afterwards", "as before", "as before", True),
    ]  # fmt: skip


def main() -> int:
    """How much was not as it should be."""
    found = rows(float(os.environ.get("MINUTES") or 20), os.environ.get("MODEL") or None)
    for row in found:
        promised = row.target and f" (promised: {row.target})"
        print(f"{'ok' if row.held else 'NO'} {row.what}: {row.figure}{promised}")
    return sum(not row.held for row in found)


if __name__ == "__main__":
    sys.exit(main())
