"""`python -m tests.bench.outliving MODEL MODEL`: a conversation whose model left memory, or whose
server was started again.

Time to the first token of a conversation's second turn: cold (another conversation of the same
length), after a swap (the other model was in memory meanwhile, and this one is loaded again), and
after a restart with the disk tier. How long the load took is told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import httpx2
import openai

from server.bench.client import get
from server.bench.run import Server

from .servers import ingle

WANTED = 5.0
_TURN = "The old lighthouse keeper wrote down the weather every evening, {n} days in a row. "


def main() -> None:
    options = _options()
    cold, swapped, loads, restarted = asyncio.run(_measure(options))
    for name, seconds in (("cold", cold), ("swapped back", swapped), ("restarted", restarted)):
        ratio = statistics.median(cold) / statistics.median(seconds)
        figures = ", ".join(f"{one * 1000:.0f}" for one in seconds)
        print(f"{name:13} {statistics.median(seconds) * 1000:7.0f} ms  {ratio:5.1f} ×  ({figures})")
    print(f"of a swap, loading the model took {statistics.median(loads) * 1000:.0f} ms")
    met = statistics.median(cold) / statistics.median(restarted) >= WANTED
    print(f"restarted: {'met' if met else 'MISSED'} {WANTED:g} ×")


async def _measure(options: argparse.Namespace) -> tuple[list[float], ...]:
    cold: list[float] = []
    swapped: list[float] = []
    loads: list[float] = []
    restarted: list[float] = []
    flags = [options.models[1], "--slots", "2", "--ctx", "4096", "--memory-mb", options.memory_mb]
    with tempfile.TemporaryDirectory() as directory:
        os.environ["INGLE_CACHE_DIR"] = str(Path(directory) / "prefixes")
        os.environ["INGLE_DISK_CACHE_MB"] = "2000"
        for turn in range(options.turns):
            talk = _talk(turn)
            async with ingle(options.models[0], flags) as server:
                first, second = await _names(server)
                cold.append(await _first_token(server, first, talk))
                await _first_token(server, second, [{"role": "user", "content": "Hello!"}])
                loads.append(await _load(server, first))
                swapped.append(await _first_token(server, first, _next(talk)))
            async with ingle(options.models[0], flags) as server:
                await _first_token(server, first, [{"role": "user", "content": "Hello!"}])
                restarted.append(await _first_token(server, first, _next(_next(talk))))
    return cold, swapped, loads, restarted


def _talk(number: int) -> list[dict[str, str]]:
    text = "".join(_TURN.format(n=100 * number + n) for n in range(60))
    return [{"role": "user", "content": f"{text} What did he do?"}]


def _next(talk: list[dict[str, str]]) -> list[dict[str, str]]:
    return [
        *talk,
        {"role": "assistant", "content": "He wrote."},
        {"role": "user", "content": "And then?"},
    ]


async def _first_token(server: Server, model: str, messages: list[dict[str, str]]) -> float:
    url = f"http://{server.endpoint.host}:{server.endpoint.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        started = time.monotonic()
        stream = await client.chat.completions.create(
            model=model, messages=messages, max_tokens=8, temperature=0, stream=True
        )
        first = 0.0
        async for chunk in stream:
            if not first and chunk.choices and chunk.choices[0].delta.content:
                first = time.monotonic() - started
    return first


async def _names(server: Server) -> list[str]:
    listed = json.loads(await get(server.endpoint, "/models"))
    return [entry["id"] for entry in listed["data"]]


async def _load(server: Server, model: str) -> float:
    """Seconds until it is in memory again."""
    url = f"http://{server.endpoint.host}:{server.endpoint.port}/admin/models/load"
    started = time.monotonic()
    async with httpx2.AsyncClient(timeout=120) as client:
        (await client.post(url, json={"model": model})).raise_for_status()
    return time.monotonic() - started


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How much of a conversation is read again?")
    parser.add_argument("models", nargs=2, metavar="MODEL", help="names or paths")
    parser.add_argument("--memory-mb", default="1500", help="room for one of the models only")
    parser.add_argument("--turns", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
