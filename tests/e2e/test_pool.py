"""Several models in the memory of one, through the real server: swaps, reloads and replicas."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import httpx2
import openai
import pytest

from tests.faults.ledger import Ledger, soon

from .conftest import Server, Start, until

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.timeout(120)]

TALKS = 6
TURNS = 5


def loads(server: Server, model: str) -> float:
    return server.metric("ingle_model_loads_total", model)


async def test_models_take_turns_and_nobody_is_lost(start: Start) -> None:
    """Two clients, two models, room for one: every answer is whole, in bounded waits."""
    server = start(
        "echo=echo:rate=400,mb=100,load=0.1", "b=echo:rate=400,mb=100,load=0.1",
        memory_mb=150, swap_seconds=0.3, slots=4,
    )  # fmt: skip
    ledger = Ledger(server, random.Random(3))

    async def talk(client: openai.AsyncOpenAI, model: str) -> None:
        for _ in range(TURNS):
            said = ledger.canary(6)
            answer = await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": said}], temperature=0
            )
            assert answer.choices[0].message.content == said

    async with server.async_client() as client:
        await asyncio.gather(*(talk(client, "b" if i % 2 else "echo") for i in range(TALKS)))
    assert 2 <= loads(server, "b") + loads(server, "echo") <= 2 * TURNS + 2
    assert len(server.engines()) == 1
    assert "Traceback" not in server.log()
    memory = [line for line in server.metrics().splitlines() if "ingle_pool_memory_bytes{" in line]
    assert [float(line.split()[-1]) for line in memory] == [150 << 20, 100 << 20]


async def test_a_model_of_vectors_answers_beside_one_of_text(start: Start) -> None:
    server = start("echo=echo:", "vectors=echo:embed")
    with server.client() as client:
        assert client.embeddings.create(model="vectors", input="hello").data[0].embedding
        with pytest.raises(openai.BadRequestError, match="makes embeddings"):
            client.chat.completions.create(
                model="vectors", messages=[{"role": "user", "content": "hello"}]
            )
        said = client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "hello"}], temperature=0
        )
        assert said.choices[0].message.content == "hello"


async def test_a_request_says_how_long_its_model_stays(start: Start) -> None:
    server = start("echo=echo:", preload="false")
    assert server.engines() == [] and server.ready()
    with server.client() as client:
        for keep in (0, "0s"):
            client.chat.completions.create(
                model="echo",
                messages=[{"role": "user", "content": "hello"}],
                extra_body={"keep_alive": keep},
            )
            until(lambda: server.engines() == [])
        with pytest.raises(openai.BadRequestError, match='such as "5m"') as caught:
            client.completions.create(model="echo", prompt="x", extra_body={"keep_alive": "soon"})
        assert caught.value.param == "keep_alive"
    assert loads(server, "echo") == 2


def configured(path: Path, text: str, server: Server) -> None:
    """Written, and read by the server."""
    before = server.log().count("the configuration is")
    path.write_text(text)
    os.kill(server.process.pid, signal.SIGHUP)
    until(lambda: server.log().count("the configuration is") > before)


async def test_reloads_under_load_fail_nobody(start: Start, tmp_path: Path) -> None:
    """Slots, context, models and limits change ten times while six clients talk."""
    file = tmp_path / "ingle.toml"
    file.write_text('models = ["echo", "b"]\n')
    server = start("echo=echo:rate=400", "b=echo:rate=400", "c=echo:", config=file)
    ledger = Ledger(server, random.Random(4))
    over = asyncio.Event()

    async def talk(client: openai.AsyncOpenAI) -> None:
        while not over.is_set():
            await ledger.ask(client, words=8)

    async with server.async_client() as client:
        talking = [asyncio.create_task(talk(client)) for _ in range(TALKS)]
        for i in range(10):
            others = '"b"' if i % 2 else '"c"'
            text = f'models = ["echo", {others}]\nslots = {2 + i % 3}\nmax_waiting = {20 + i}\n'
            before = loads(server, "echo")
            await asyncio.to_thread(configured, file, text, server)
            await soon(lambda before=before: loads(server, "echo") > before)
        over.set()
        await asyncio.gather(*talking)
    assert all(entry.outcome == "stop" for entry in ledger.entries)
    assert server.log().count("the configuration is reloaded") == 10
    assert loads(server, "echo") >= 10
    names = [model["id"] for model in httpx2.get(f"{server.base}/v1/models").json()["data"]]
    assert names == ["echo", "b"]


async def test_a_configuration_that_is_wrong_changes_nothing(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "ingle.toml"
    file.write_text("")
    server = start("echo=echo:", config=file)
    engines = [engine.pid for engine in server.engines()]
    for wrong in ("slots = 0", "slotz = 1", 'models = ["nosuch"]', '[aliases]\nx = "nosuch"'):
        configured(file, wrong, server)
        assert "the configuration is not reloaded" in server.log()
    configured(file, "max_choices = 3\nmax_waiting = 3", server)
    assert '"needs_restart": ["max_choices"]' in server.log()
    configured(file, "max_choices = 3\nmax_waiting = 4", server)
    assert server.log().count('"needs_restart": ["max_choices"]') == 2, "it is still not in force"
    configured(file, "max_waiting = 3", server)
    assert '"needs_restart": []' in server.log()
    assert [engine.pid for engine in server.engines()] == engines
    Ledger(server, random.Random(1)).probe()


async def test_keys_change_without_a_restart(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("old\n")
    file = tmp_path / "ingle.toml"
    file.write_text(f'api_key_file = "{keys}"\n')
    server = start("echo=echo:", config=file)

    def status(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return httpx2.get(f"{server.base}/v1/models", headers=headers).status_code

    assert (status("old"), status("new")) == (200, 401)
    keys.write_text("new\n")
    configured(file, file.read_text(), server)
    assert (status("old"), status("new")) == (401, 200)


async def test_conversations_stay_with_the_replica_that_read_them(
    start: Start, tmp_path: Path
) -> None:
    """And one that is killed loses nothing."""
    file = tmp_path / "ingle.toml"
    file.write_text("[model.echo]\nreplicas = 2\n")
    server = start("echo=echo:rate=400,prefill=20000", config=file, slots=3, ctx=8192)
    assert len(server.engines()) == 2
    ledger = Ledger(server, random.Random(9))

    async def talk(client: openai.AsyncOpenAI, system: str) -> list[tuple[int, int]]:
        """Of each turn: tokens reused, and those of the turn before."""
        turns, seen, before = [], 0, ""
        for _ in range(TURNS):
            before += ledger.canary(30) + " "
            entry = await ledger.ask(client, said="go on", system=f"{system} {before}")
            turns.append((entry.usage.prompt_tokens_details.cached_tokens, seen))
            seen = entry.usage.prompt_tokens
        return turns

    async with server.async_client() as client:
        talks = await asyncio.gather(*(talk(client, f"{i} " * 1000) for i in range(4)))
        for turns in talks:
            assert all(cached >= 0.9 * seen - 60 for cached, seen in turns[1:]), turns
        dying = [asyncio.create_task(ledger.ask(client, words=20)) for _ in range(6)]
        await soon(lambda: sum(len(e.text) for e in ledger.entries[-6:]) > 100)
        os.kill(server.engines()[0].pid, signal.SIGKILL)
        await asyncio.gather(*dying)
    assert all(entry.outcome == "stop" for entry in ledger.entries)
    ledger.check()
    assert server.metric("ingle_engine_restarts_total") == 1
