"""/admin: who may, and what they see and do."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from msgspec import structs

from server.core.errors import ConfigError
from tests.fakes import FakeEngine, model_info

from .conftest import Serve, make_app

pytestmark = pytest.mark.anyio

ADMIN, API = "sk-admin", "sk-api"


async def status(
    app: FastAPI, peer: str = "127.0.0.1", host: str = "localhost", **headers: str
) -> int:
    transport = httpx2.ASGITransport(app, client=(peer, 5000))
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        return int((await client.get("/admin/models", headers=spelled)).status_code)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
async def test_without_a_key_of_its_own_only_this_machine_may(peer: str) -> None:
    app, _ = make_app()
    assert await status(app, peer) == 200
    for proxied in ("x_forwarded_for", "forwarded", "x_real_ip", "via", "x_forwarded_proto"):
        assert await status(app, peer, **{proxied: "1"}) == 403, proxied


@pytest.mark.parametrize("peer", ["192.168.1.7", "10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "x"])
async def test_nobody_else_may(peer: str) -> None:
    assert await status(make_app()[0], peer) == 403
    keyed, _ = make_app(api_key=API)
    assert await status(keyed, peer, **bearer(API)) == 403


async def test_on_this_machine_an_api_key_is_wanted_where_there_are_any() -> None:
    app, _ = make_app(api_key=API)
    assert await status(app) == 401
    assert await status(app, **bearer("wrong")) == 401
    assert await status(app, **bearer(API)) == 200


async def test_the_admin_key_opens_it_from_anywhere_and_an_api_key_does_not() -> None:
    app, _ = make_app(api_key=API, admin_key=ADMIN, allowed_hosts="*")
    for peer in ("127.0.0.1", "192.168.1.7"):
        assert await status(app, peer) == 401
        assert await status(app, peer, **bearer("wrong")) == 401
        assert await status(app, peer, **bearer(API)) == 403
        assert await status(app, peer, **bearer(ADMIN)) == 200
        assert await status(app, peer, x_api_key=ADMIN, x_forwarded_for="1") == 200


async def test_the_admin_key_is_no_api_key(serve: Serve) -> None:
    async with serve(api_key=API, admin_key=ADMIN) as client:
        assert (await client.get("/v1/models", headers=bearer(ADMIN))).status_code == 401


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:3000", "null", ""])
async def test_pages_of_other_origins_may_not(origin: str) -> None:
    """A form of theirs needs no permission to be sent, so it is refused when it comes."""
    app, _ = make_app(cors_origins="*")
    assert await status(app, origin=origin) == 403
    assert await status(app, origin="http://localhost") == 200
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        asked = {"origin": origin or "null", "access-control-request-method": "POST"}
        preflight = await client.options("/admin/reload", headers=asked)
        assert "access-control-allow-origin" not in preflight.headers
        assert (
            "access-control-allow-origin"
            in (
                await client.options("/v1/models", headers={**asked, "origin": "http://a.example"})
            ).headers
        )


async def admin(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost")


async def test_models_are_shown_loaded_and_unloaded() -> None:
    loaded, absent = FakeEngine(name="org/a"), FakeEngine(name="b", info=model_info())
    absent.loaded = None
    app, pool = make_app(loaded, absent, aliases={"gpt-4o": "org/a"})
    async with await admin(app) as client:
        shown = (await client.get("/admin/models")).json()
        assert shown["memory"] == {"budget_bytes": 10_000, "used_bytes": 2000}
        first, second = shown["data"]
        assert (first["id"], first["aliases"], first["status"]) == ("org/a", ["gpt-4o"], "loaded")
        assert (second["context"], second["quantization"]) == (None, "F16")
        body: dict[str, Any] = {"model": "gpt-4o", "keep_alive": "10m"}
        assert (await client.post("/admin/models/load", json=body)).json()["id"] == "org/a"
        assert (await client.post("/admin/models/unload", json={"model": "b"})).json()["id"] == "b"
        assert pool.asked == [("load", "org/a", 600.0), ("unload", "b", None)]
        missing = await client.post("/admin/models/load", json={"model": "c"})
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
        for wrong in ({}, {"model": 1}, {"model": ""}, {"model": "b", "keep_alive": "soon"}):
            refused = await client.post("/admin/models/load", json=wrong)
            assert refused.status_code == 400 and refused.json()["error"]["param"]


async def test_a_list_for_clients_says_which_models_are_in_memory() -> None:
    loaded, absent = FakeEngine(name="a"), FakeEngine(name="b")
    absent.loaded = None
    app, _ = make_app(loaded, absent)
    async with await admin(app) as client:
        first, second = (await client.get("/v1/models")).json()["data"]
    assert first["status"] == {"value": "loaded"} and first["context_length"] == 1024
    assert second["status"] == {"value": "unloaded"} and "context_length" not in second
    assert second["capabilities"] == ["completion", "chat"]
    assert second["meta"]["quantisation"] == "F16"


async def test_a_reload_answers_what_changed_or_why_not() -> None:
    app, _ = make_app()
    async with await admin(app) as client:
        early = await client.post("/admin/reload")
        assert early.status_code == 400

        async def reload() -> dict[str, Any]:
            return {"changed": ["slots"], "added": [], "removed": [], "needs_restart": []}

        app.state.ingle.admin.reload = reload
        assert (await client.post("/admin/reload")).json()["changed"] == ["slots"]

        async def refuse() -> dict[str, Any]:
            raise ConfigError("slots = 0 in x.toml is not valid")

        app.state.ingle.admin.reload = refuse
        refused = await client.post("/admin/reload")
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "invalid_config"
        assert "slots = 0" in refused.json()["error"]["message"]


CHAT = "/v1/chat/completions"
HI = {"model": "fake", "messages": [{"role": "user", "content": "secret words"}]}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_seen_and_ended_and_others_go_on(stream: bool) -> None:
    """In the middle of its answer."""
    engine = FakeEngine()
    middle, go_on = asyncio.Event(), asyncio.Event()

    def script(requests: Any) -> Any:
        said = iter(engine_script(requests))
        yield next(said)
        yield next(said)
        middle.set()
        yield go_on
        yield from said

    engine_script, engine.script = engine.script, script
    app, _ = make_app(engine)
    async with await admin(app) as client:

        async def ask(name: str) -> httpx2.Response:
            headers = {"x-request-id": name}
            return await client.post(CHAT, json={**HI, "stream": stream}, headers=headers)

        asked = [asyncio.create_task(ask(name)) for name in ("one", "two")]
        await middle.wait()
        while True:
            await asyncio.sleep(0)  # no request here waits for anything of itself
            listed = (await client.get("/admin/requests")).json()["data"]
            if [row["status"] for row in listed] == ["decode", "decode"]:
                break
        shown = {row["id"]: row for row in listed}["one"]
        assert shown["model"] == "fake" and shown["path"] == CHAT and shown["prompt_tokens"] == 7
        assert shown["completion_tokens"] == 1
        assert "secret" not in str(listed)
        gone = await client.delete("/admin/requests/none")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "request_not_found")
        assert (await client.delete("/admin/requests/one")).json()["cancelled"] is True
        ended = await asked[0]
        go_on.set()
        other = await asked[1]
    assert other.status_code == 200
    if stream:
        assert '"request_cancelled"' in ended.text and ended.text.endswith("data: [DONE]\n\n")
        assert "request_cancelled" not in other.text
    else:
        assert (ended.status_code, ended.headers["x-should-retry"]) == (409, "false")
        assert ended.json()["error"]["code"] == "request_cancelled"
    assert not app.state.ingle.admin.in_flight.listed()


async def test_a_full_server_can_be_looked_after() -> None:
    app, _ = make_app(max_waiting=0)
    state = app.state.ingle
    with state.admission.admit():
        async with await admin(app) as client:
            assert (await client.post(CHAT, json=HI)).status_code == 503
            body = {"model": "fake"}
            assert (await client.post("/admin/models/load", json=body)).status_code == 200
    assert structs.asdict(state.rules)


@pytest.mark.parametrize("word", ["/etc/passwd", "../x.gguf", "nosuch", "ollama:x", "hf:", "x/y"])
async def test_only_references_are_pulled(word: str) -> None:
    app, _ = make_app()
    async with await admin(app) as client:
        answer = await client.post("/admin/models/pull", json={"model": word})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "model"
