"""Two models in the memory of one, and a model that is there twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import psutil
import pytest

from server.catalog import read_header
from server.core.config import RunnerConfig
from server.llama import loading

from .conftest import serving

pytestmark = [pytest.mark.model, pytest.mark.anyio, pytest.mark.timeout(240)]

BUDGET_MIB = 1500
"""Neither model's weights, KV and buffers leave room for the other's."""


@pytest.fixture(scope="module")
def taking_turns(model_path: Path, qwen_path: Path) -> Iterator[tuple[str, list[str]]]:
    flags = (str(qwen_path), "--memory-mb", str(BUDGET_MIB), "--slots", "4", "--ctx", "2048")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INGLE_SWAP_SECONDS", "0.5")
        with serving(model_path, *flags) as url:
            yield url, [path.name.removesuffix(".gguf") for path in (model_path, qwen_path)]


def metric(url: str, name: str) -> float:
    """Of all models together."""
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))


async def test_two_models_swap_under_load_and_no_request_fails(
    taking_turns: tuple[str, list[str]],
) -> None:
    url, names = taking_turns

    async def talk(client: openai.AsyncOpenAI, first: int, words: str) -> list[str]:
        """Each model says the next thing to what the other one said."""
        messages = [{"role": "user", "content": f"Tell me about {words}."}]
        said = []
        for turn in range(3):
            answer = await client.chat.completions.create(
                model=names[(first + turn) % 2], messages=messages, max_tokens=24, temperature=0
            )
            said.append(answer.choices[0].message.content or "")
            messages += [
                {"role": "assistant", "content": said[-1]},
                {"role": "user", "content": "Go on."},
            ]
        return said

    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=200
    ) as client:
        talks = [talk(client, i, words) for i, words in enumerate(("cats", "C") * 3)]
        answers = await asyncio.gather(*talks)
    assert all(text for said in answers for text in said)
    assert metric(url, "ingle_model_loads_total") >= 3
    assert metric(url, "ingle_engine_restarts_total") == 0
    assert sum(1 for process in psutil.process_iter() if is_engine_of(process, url)) == 1


def is_engine_of(process: psutil.Process, url: str) -> bool:
    try:
        parent = process.parent()
        mine = parent is not None and url.rsplit(":", 1)[1] in parent.cmdline()
        return mine and "server.engine.worker" in process.cmdline()
    except psutil.Error:
        return False


async def test_a_replica_that_is_killed_loses_nothing(model_path: Path, tmp_path: Path) -> None:
    name = model_path.name.removesuffix(".gguf")
    file = tmp_path / "ingle.toml"
    file.write_text(f'[model."{name}"]\nreplicas = 2\n')
    with serving(model_path, "--config", str(file), "--slots", "2", "--ctx", "1024") as url:
        engines = [process for process in psutil.process_iter() if is_engine_of(process, url)]
        assert len(engines) == 2
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=100
        ) as client:

            async def ask(about: str) -> tuple[str, list[int]]:
                heard = []
                stream = await client.chat.completions.create(
                    model=name,
                    messages=[{"role": "user", "content": f"Count from 1 to 40, {about}."}],
                    max_tokens=80,
                    temperature=0,
                    stream=True,
                    logprobs=True,
                )
                reason = ""
                async for chunk in stream:
                    for choice in chunk.choices:
                        heard += [
                            s.token for s in (choice.logprobs and choice.logprobs.content) or ()
                        ]
                        reason = choice.finish_reason or reason
                return reason, heard

            asking = [asyncio.create_task(ask(about)) for about in ("slowly", "aloud", "twice")]
            while metric(url, "ingle_requests_running") < 3:
                await asyncio.sleep(0.02)
            os.kill(engines[0].pid, signal.SIGKILL)
            for reason, heard in await asyncio.gather(*asking):
                assert reason == "stop" or len(heard) == 80
        assert metric(url, "ingle_engine_restarts_total") == 1


@pytest.mark.parametrize("which", ["model_path", "qwen_path", "gemma_path"])
def test_what_a_header_says_a_token_takes_is_what_it_takes(
    which: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(which)
    config = RunnerConfig(path=str(path))
    model = loading.load_model(config)
    measured = loading.state_size(model, config).per_token
    # Beside K and V a state has its positions, of each of its caches: a few bytes a token.
    assert 0 <= measured - 2 * read_header(path).kv_width <= 32
