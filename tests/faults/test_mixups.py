"""Many at once, sharing prefixes, leaving, with a crash: to each his own words and own key."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal

import pytest

from tests.e2e.conftest import Start

from .ledger import LEFT, Entry, Ledger, soon

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.timeout(240)]

CLIENTS = 8
REQUESTS = 50
KEYS = ("sk-anna", "sk-bert")
PREFIXES = [f"prefix {i}: " + "words that many begin with " * i for i in range(1, 9)]
CRASH_AT = 150


async def test_four_hundred_requests_keep_their_words_and_their_keys(start: Start) -> None:
    server = start("echo=echo:rate=2000,prefill=200000", slots=4, api_key=",".join(KEYS), ctx=1024)
    ledger = Ledger(server, random.Random(41))
    sent: dict[str, list[str]] = {key: [] for key in KEYS}
    other: list[tuple[Entry, int, int]] = []

    async def client(number: int) -> None:
        chance, key = random.Random(number), KEYS[number % len(KEYS)]
        async with server.async_client(api_key=key, max_retries=5) as asking:
            for _ in range(REQUESTS):
                prefix = chance.choice(PREFIXES)
                said = ledger.canary(chance.randrange(2, 8))
                asked = asyncio.create_task(
                    ledger.ask(
                        asking,
                        said=said,
                        system=prefix,
                        n=chance.choice((1, 1, 1, 2)),
                        stream=chance.random() < 0.7,
                        max_tokens=chance.choice((None, 9, 30)),
                        leave_after=chance.randrange(1, 40) if chance.random() < 0.2 else None,
                    )
                )
                await asyncio.sleep(0)
                entry = ledger.entries[-1]
                assert entry.said == said
                sent[key].append(entry.prompt)
                await asked
                if entry.whole:
                    other.append((entry, *common(entry, sent)))

    async def crash() -> None:
        await soon(lambda: len(ledger.entries) > CRASH_AT, 60)
        os.kill(server.engines()[0].pid, signal.SIGSEGV)

    await asyncio.gather(*map(client, range(CLIENTS)), crash())
    assert len(ledger.entries) == CLIENTS * REQUESTS
    assert {entry.outcome for entry in ledger.entries} == {"stop", "length", LEFT}
    reused = 0
    for entry, own, foreign in other:
        cached = entry.usage.prompt_tokens_details.cached_tokens
        assert cached <= own, f"{cached} tokens of another key: {foreign}"
        reused += cached
    assert reused > 10_000
    assert any(foreign > own for _, own, foreign in other), "there was something to leak"
    ledger.check()
    assert server.metric("ingle_engine_restarts_total") == 1


def common(entry: Entry, sent: dict[str, list[str]]) -> tuple[int, int]:
    """The longest beginning that others with its key, and with another one, have as well."""
    own = [prompt for prompt in sent[entry.key] if prompt is not entry.prompt]
    foreign = [prompt for key in KEYS if key != entry.key for prompt in sent[key]]
    return _longest(entry.prompt, own), _longest(entry.prompt, foreign)


def _longest(prompt: str, others: list[str]) -> int:
    return max((_shared(prompt.encode(), other.encode()) for other in others), default=0)


def _shared(one: bytes, other: bytes) -> int:
    alike = (a == b for a, b in zip(one, other, strict=False))
    return sum(itertools.takewhile(bool, alike))
