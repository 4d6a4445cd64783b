"""Requests that no two clients send alike: of 5 000 no word may become a label."""

from __future__ import annotations

import asyncio
import random
import string

import httpx2

from .canaries import CHAT

MOST_SERIES = 300
_TOGETHER = 16


def words(number: int) -> list[str]:
    """One for three requests, and a first one whose requests make all series there will be."""
    chance = random.Random(5)
    return ["".join(chance.choices(string.ascii_lowercase, k=12)) for _ in range(1 + number // 3)]


async def series(client: httpx2.AsyncClient, words: list[str]) -> int:
    """How many there are once each word was a path, a method, a model and a user."""
    for first in range(0, len(words), _TOGETHER):
        await asyncio.gather(*(_ask(client, word) for word in words[first : first + _TOGETHER]))
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(not line.startswith("#") for line in lines)


async def _ask(client: httpx2.AsyncClient, word: str) -> None:
    await client.request(word.upper(), f"/v1/models/{word}")
    await client.get(f"/{word}/{word}?{word}={word}", headers={"x-request-id": word})
    body = {"model": word, "user": word, "messages": [{"role": "user", "content": word}]}
    await client.post(CHAT, json=body)
