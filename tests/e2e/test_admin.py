"""/admin of a real server: its models, its requests, and a model that is fetched."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.catalog.sources import Hub, serve_hub
from tests.faults.ledger import soon
from tests.faults.raw import Raw, posted
from tests.gguf_files import gguf

from .conftest import Server, Start, until
from .referee import check_refusal
from .test_fuzz import EDGES, MISSING, is_clear

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.timeout(90)]

LONG = "many words " * 60
MODEL = gguf()
STILL = 20
"""Looks, of some 20 ms."""


def entry(server: Server, model: str) -> dict[str, Any]:
    models = httpx2.get(f"{server.base}/admin/models").json()["data"]
    return next(one for one in models if one["id"] == model)


def listed(server: Server) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = httpx2.get(f"{server.base}/admin/requests").json()["data"]
    return rows


async def say(client: openai.AsyncOpenAI, model: str = "echo", text: str = LONG) -> str:
    heard = []
    async for chunk in await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        temperature=0,
        stream=True,
        extra_headers={"x-request-id": f"of-{model}"},
    ):
        heard += [choice.delta.content or "" for choice in chunk.choices]
    return "".join(heard)


async def test_a_model_leaves_once_it_is_idle_and_comes_back_for_those_that_wait(
    start: Start,
) -> None:
    server = start("echo=echo:rate=100,mb=10")
    async with server.async_client() as client:
        running = asyncio.create_task(say(client))
        await soon(lambda: entry(server, "echo")["requests"] == 1)
        first = server.engines()[0].pid
        async with httpx2.AsyncClient(base_url=server.base, timeout=30) as admin:
            body = {"model": "echo"}
            leaving = asyncio.create_task(admin.post("/admin/models/unload", json=body))
            late = asyncio.create_task(say(client, text="late"))
            await soon(lambda: entry(server, "echo")["waiting"] == 1)
            assert not leaving.done()
            assert await running == LONG
            assert (await leaving).status_code == 200
        assert await late == "late"
    shown = entry(server, "echo")
    assert (shown["status"], shown["measured"]) == ("loaded", True)
    assert server.engines()[0].pid != first
    assert server.metric("ingle_model_unloads_total") == 1


@pytest.mark.parametrize("phase", ["loading", "queued", "prefill", "decode"])
async def test_a_request_is_ended_wherever_it_is_and_its_neighbour_goes_on(
    start: Start, phase: str
) -> None:
    """Its client hears that, and the engine is idle at once."""
    knobs = {"loading": "load=1.5", "prefill": "prefill=100"}.get(phase, "")
    server = start(
        f"echo=echo:rate=50,{knobs}", "other=echo:rate=200", slots=1,
        preload="false" if phase == "loading" else "true",
    )  # fmt: skip
    async with server.async_client() as client:
        before = []
        if phase == "queued":
            before = [asyncio.create_task(say(client))]
            await soon(lambda: any(row["status"] == "decode" for row in listed(server)))
        asked = asyncio.create_task(
            client.chat.completions.create(
                model="echo",
                messages=[{"role": "user", "content": LONG}],
                extra_headers={"x-request-id": "mine"},
            )
        )
        neighbour = asyncio.create_task(say(client, "other", "a neighbour"))
        await soon(lambda: any(r["id"] == "mine" and r["status"] == phase for r in listed(server)))
        ended = httpx2.delete(f"{server.base}/admin/requests/mine").json()
        assert ended == {"id": "mine", "cancelled": True}
        with pytest.raises(openai.ConflictError, match="administrator ended") as caught:
            await asyncio.wait_for(asked, 5)
        assert caught.value.code == "request_cancelled"
        assert await neighbour == "a neighbour"
        for task in before:
            task.cancel()
        await asyncio.gather(*before, return_exceptions=True)
        await soon(lambda: listed(server) == [])
        if phase != "loading":
            await soon(lambda: server.metric("ingle_requests_running") == 0)


async def test_a_stream_that_is_ended_says_so(start: Start) -> None:
    server = start("echo=echo:rate=50")
    async with server.async_client() as client:
        asked = asyncio.create_task(say(client))
        await soon(lambda: any(row["completion_tokens"] > 3 for row in listed(server)))
        httpx2.delete(f"{server.base}/admin/requests/of-echo").raise_for_status()
        with pytest.raises(openai.APIError, match="administrator ended"):
            await asked
        await soon(lambda: server.metric("ingle_requests_running") == 0)
    assert server.outcomes()["error"] == 1


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve_hub(MODEL) as hub:
        hub.repositories["org/m"] = {"m-Q4_K_M.gguf": MODEL}
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield hub


def pulled(server: Server, word: str) -> list[dict[str, Any]]:
    url = f"{server.base}/admin/models/pull"
    with httpx2.stream("POST", url, json={"model": word}, timeout=30) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_model_is_fetched_with_progress_and_not_twice(
    start: Start, hub: Hub, tmp_path: Path
) -> None:
    server = start("echo=echo:", models_dir=tmp_path / "models")
    frames = pulled(server, "hf:org/m")
    assert frames[-1] == {
        "status": "done",
        "model": "org/m:Q4_K_M",
        "completed": len(MODEL),
        "total": len(MODEL),
    }
    (path,) = (tmp_path / "models").rglob("*.gguf")
    assert path.read_bytes() == MODEL
    asked = len(hub.paths)
    assert pulled(server, "hf:org/m")[-1]["status"] == "done"
    assert len(hub.paths) == asked


def test_a_pull_that_fails_ends_with_an_error(start: Start, hub: Hub, tmp_path: Path) -> None:
    server = start("echo=echo:", models_dir=tmp_path / "models")
    assert pulled(server, "hf:org/nothing")[-1]["error"]["code"] == "pull_failed"
    hub.repositories["org/m"] = {"m-Q4_K_M.gguf": b"no model at all" * 10}
    assert "is not a GGUF model" in pulled(server, "hf:org/m")[-1]["error"]["message"]
    assert not list((tmp_path / "models").rglob("*.gguf"))
    assert server.ready()


def test_a_pull_whose_client_goes_ends_and_keeps_what_came(
    start: Start, hub: Hub, tmp_path: Path
) -> None:
    hub.drips = 0.005
    server = start("echo=echo:", models_dir=tmp_path / "models")
    url = f"{server.base}/admin/models/pull"
    with httpx2.stream("POST", url, json={"model": "hf:org/m"}, timeout=30) as response:
        seen = iter(response.iter_lines())
        while True:
            line = next(seen)
            if line.startswith("data: ") and (json.loads(line[6:]).get("completed") or 0) > 0:
                break
    until(lambda: bool(list((tmp_path / "models").rglob("*.part"))))
    hub.over.set()
    hub.drips = None
    hub.over.clear()
    assert pulled(server, "hf:org/m")[-1]["status"] == "done"


async def test_a_stream_that_nobody_reads_is_ended_all_the_same(start: Start) -> None:
    """Its slot is free at once, not when its client is taken to be gone, which is in 30 s."""
    server = start("echo=echo:", slots=1, ctx=65_536)
    body = {
        "model": "echo",
        "messages": [{"role": "user", "content": "many words " * 5000}],
        "stream": True,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
    }
    with Raw(server) as deaf:
        deaf.send(posted(json.dumps(body).encode(), "X-Request-Id: deaf"))
        seen: deque[int] = deque(maxlen=STILL)
        await soon(lambda: _stands_still(server, seen), 20)
        httpx2.delete(f"{server.base}/admin/requests/deaf").raise_for_status()
        await soon(lambda: listed(server) == [], 5)
        await soon(lambda: server.metric("ingle_requests_running") == 0, 5)
        async with server.async_client() as client:
            assert await asyncio.wait_for(say(client, text="next"), 5) == "next"


def _stands_still(server: Server, seen: deque[int]) -> bool:
    """Whether no token has come for so many looks: the engine was told to pause."""
    seen += [row["completion_tokens"] for row in listed(server)]
    return len(seen) == STILL and 0 < seen[0] == seen[-1]


def test_whatever_the_operator_sends_is_done_or_refused_with_the_fields_name(start: Start) -> None:
    server = start("echo=echo:", "spare=echo:")
    done = 0
    for path in ("load", "unload"):
        for name in ("model", "keep_alive"):
            for value in EDGES:
                body = {"model": "spare", name: value}
                body = {key: right for key, right in body.items() if right is not MISSING}
                url = f"{server.base}/admin/models/{path}"
                headers = {"content-type": "application/json"}
                response = httpx2.post(url, content=json.dumps(body).encode(), headers=headers)
                done += response.status_code == 200
                if response.status_code != 200:
                    error = check_refusal(response)
                    assert is_clear(error, name, value), (path, name, value, error)
    assert done > 4
    for model in ("echo", "spare"):
        hello = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        answer = httpx2.post(f"{server.base}/v1/chat/completions", json=hello).raise_for_status()
        assert answer.json()["choices"][0]["message"]["content"] == "Hello"
    assert server.metric("ingle_engine_restarts_total", "echo") == 0


def test_a_server_that_is_told_to_stop_waits_for_no_pull(
    start: Start, hub: Hub, tmp_path: Path
) -> None:
    hub.drips = 60.0
    server = start("echo=echo:", models_dir=tmp_path / "models")
    url = f"{server.base}/admin/models/pull"
    with httpx2.stream("POST", url, json={"model": "hf:org/m"}, timeout=30) as response:
        lines = response.iter_lines()
        while '"downloading"' not in next(lines):
            pass
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
    hub.over.set()
