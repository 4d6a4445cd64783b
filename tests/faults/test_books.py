"""The server's counts are its clients' counts, whatever happened in between."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import httpx2
import openai
import pytest

from tests.e2e.conftest import Server, Start

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.timeout(120)]

ASKED = 30


async def _usage(client: openai.AsyncOpenAI, number: int) -> Any:
    """One request of six kinds, and the usage its client was told."""
    words = f"{number % 7} " + "the words that everybody says " * (1 + number % 4)
    fixed = {"model": "echo", "temperature": 0}
    chat = {**fixed, "messages": [{"role": "user", "content": words}], "n": 1 + number % 3}
    match number % 6:
        case 0 | 1:
            return (await client.chat.completions.create(**chat)).usage
        case 2 | 3:
            more = {"stream": True, "stream_options": {"include_usage": True}}
            chunks = [chunk async for chunk in await client.chat.completions.create(**chat, **more)]
            return chunks[-1].usage
        case 4:
            more = {"prompt": [words, "more"], "n": 2, "max_tokens": 9}
            return (await client.completions.create(**fixed, **more)).usage
        case _:
            more = {"stop": ["every"], "max_completion_tokens": 20}
            return (await client.chat.completions.create(**chat, **more)).usage


def _total(server: Server, name: str) -> int:
    return int(server.metric(f"ingle_{name}_total"))


@pytest.mark.parametrize("crashes", [0, 3])
async def test_the_counters_are_the_sums_of_what_clients_were_told(
    start: Start, crashes: int
) -> None:
    """A crash comes when all who saw the last one are done: each request sees one at most."""
    server = start("echo=echo:rate=400", slots=4)
    usages: list[Any] = []
    async with server.async_client() as client:
        for part in range(1 + crashes):
            asked = [asyncio.create_task(_usage(client, part * ASKED + i)) for i in range(ASKED)]
            if part < crashes:
                await asked[5]
                os.kill(server.engines()[0].pid, signal.SIGSEGV)
            usages += await asyncio.gather(*asked)
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="echo", messages=[])
    cached = sum(usage.prompt_tokens_details.cached_tokens for usage in usages)
    assert _total(server, "engine_restarts") == crashes
    assert _total(server, "prompt_tokens") == sum(usage.prompt_tokens for usage in usages)
    assert _total(server, "generated_tokens") == sum(usage.completion_tokens for usage in usages)
    assert _total(server, "cached_tokens") == cached > 0
    assert sum(server.outcomes().values()) == len(usages)
    text = httpx2.get(f"{server.base}/metrics").text
    assert 'status="500"' not in text
