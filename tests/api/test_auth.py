"""Keys: every route asks for one, but those that health checks need."""

from __future__ import annotations

import gc
import hashlib
import inspect
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from server.api import keys
from server.core.errors import ConfigError
from tests.fakes import FakeEngine

from .conftest import Serve, make_app

pytestmark = pytest.mark.anyio

SERVER = Path(__file__).parents[2] / "server"
KEY = "sk-right"
HI = {"messages": [{"role": "user", "content": "Hi"}]}
OTHERS = (KEY[:-1], KEY + "2", KEY.upper(), "k" * 100_000, "schlüssel".encode(), b"\xff" * 40)
"""Keys that are none: a part of one, one and more, one of 100 kB, one that is no ASCII."""
PUBLIC = {"/", "/livez", "/readyz", "/health", "/v1/health"}
PUBLIC |= {"/docs", "/web/{name:path}"}
"""Probes, and pages that hold nothing but themselves: they ask for the key."""


def _routes() -> list[tuple[str, str]]:
    app, _ = make_app(api_key=KEY)
    return [
        (method, context.path)
        for context in iter_route_contexts(app.routes)
        for method in sorted(context.methods or ())
    ]


def test_the_routes_are_the_ones_there_should_be() -> None:
    """A new route is a decision: add it here, and to PUBLIC only for a reason."""
    paths = {path for _, path in _routes()}
    openai = {"/chat/completions", "/completions", "/models", "/models/{model_id:path}"}
    openai |= {"/tokenize", "/detokenize", "/apply-template"}
    openai |= {"/embeddings", "/rerank", "/reranking"}
    admin = {"/models", "/models/load", "/models/unload", "/models/pull", "/requests", "/reload"}
    admin = {f"/admin{path}" for path in (*admin, "/requests/{request_id}")}
    v1 = {f"/v1{path}" for path in openai}
    assert paths == (PUBLIC | {"/metrics", "/openapi.json"} | openai | v1 | admin)


def test_nothing_is_mounted_and_no_file_is_served() -> None:
    """What is mounted would be beside the walk over the routes, and keys are asked for by route."""
    for settings in ({}, {"api_key": KEY}):
        app, _ = make_app(**settings)
        assert not [route for route in app.routes if isinstance(route, Mount)]
    sources = [path.read_text(encoding="utf-8") for path in SERVER.rglob("*.py")]
    assert len(sources) > 100
    assert not [source for source in sources if re.search(r"StaticFiles|FileResponse", source)]


@pytest.mark.parametrize(("method", "path"), _routes())
async def test_every_route_but_the_public_ones_wants_the_key(
    serve: Serve, method: str, path: str
) -> None:
    url = path.replace("{model_id:path}", "fake").replace("{name:path}", "main.js")
    async with serve(api_key=KEY) as client:
        assert (await client.options(url)).status_code == 204
        without = await client.request(method, url)
        wrong = await client.request(method, url, headers={"authorization": "Bearer sk-wrong"})
        right = await client.request(method, url, headers={"authorization": f"Bearer {KEY}"})
        head = await client.head(url)
        others = [await client.request(method, url, headers={"x-api-key": key}) for key in OTHERS]
    assert right.status_code not in (401, 404)
    if path in PUBLIC:
        assert without.status_code == 200
        return
    assert (without.status_code, wrong.status_code) == (401, 401)
    assert {response.status_code for response in others} == {401}
    assert head.status_code == (401 if method == "GET" else 405)
    assert without.json()["error"]["code"] is None
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert all(
        set(r.json()["error"]) == {"message", "type", "param", "code"} for r in (without, wrong)
    )
    assert "sk-wrong" not in wrong.text and KEY not in wrong.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer  {KEY} "}, 200),
        ({"x-api-key": KEY}, 200),
        ({"api-key": KEY}, 200),
        ({"authorization": f"Bearer {KEY}", "x-api-key": KEY}, 200),
        ({"authorization": "Bearer ", "x-api-key": KEY}, 200),
        ({"authorization": "Bearer dummy", "x-api-key": KEY}, 200),
        ({"authorization": f"Bearer {KEY}", "api-key": "dummy"}, 200),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"authorization": KEY}, 401),
        ({"authorization": "Bearer sk-righ"}, 401),
        ({"authorization": "Bearer sk-right2"}, 401),
        ({"authorization": f"Bearer {KEY}, Bearer {KEY}"}, 401),
        ({"authorization": f"Bearer {KEY}" + "t" * 10_000}, 401),
        ({"x-api-key": hashlib.sha256(KEY.encode()).hexdigest()}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"x-api-key": ""}, 401),
        ({}, 401),
    ],
)
async def test_a_key_may_come_in_three_headers(
    serve: Serve, headers: dict[str, str], status: int
) -> None:
    async with serve(api_key=KEY) as client:
        assert (await client.get("/v1/models", headers=headers)).status_code == status


@pytest.mark.parametrize("given", ["Bearer dummy", "Bearer ", "Bearer None", "", "Basic x"])
async def test_without_a_key_anything_goes(serve: Serve, given: str) -> None:
    async with serve() as client:
        response = await client.get("/v1/models", headers={"authorization": given})
    assert response.status_code == 200


async def test_a_key_that_is_no_ascii_is_wrong_and_not_a_bug() -> None:
    app, _ = make_app(api_key=KEY)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        headers = {b"authorization": "Bearer schlüssel".encode("latin-1")}
        assert (await client.get("/v1/models", headers=headers)).status_code == 401


async def test_the_key_is_the_scope_but_not_in_clear(serve: Serve) -> None:
    """Prefixes are shared within a key; the engine never sees the key itself."""
    engine = FakeEngine()
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    async with serve(engine, api_key=KEY) as client:
        await client.post("/v1/chat/completions", json=body, headers={"x-api-key": KEY})
    assert engine.requests[0].scope
    assert KEY not in engine.requests[0].scope


async def test_a_trick_in_the_host_header_does_not_move_the_route(serve: Serve) -> None:
    async with serve(api_key=KEY) as client:
        for host in ("x/health?", "x#/health", "u@health"):
            response = await client.get("/v1/models", headers={"host": host})
            assert response.status_code == 400
            assert response.json()["error"]["code"] == "invalid_host"


async def test_each_of_several_keys_opens_and_has_a_scope_of_its_own(
    serve: Serve, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text("# Ada\nsk-ada\n\n  sk-bob # Bob, the second\nsk#1\n")
    engine = FakeEngine()
    scopes = set()
    async with serve(engine, api_key=(KEY, "sk-2"), api_key_file=file) as client:
        for key in (KEY, "sk-2", "sk-ada", "sk-bob", "sk#1"):
            headers = {"x-api-key": key}
            response = await client.post("/v1/chat/completions", json=HI, headers=headers)
            assert response.status_code == 200
            scopes.add(engine.requests[0].scope)
        for key in ("# Ada", "Ada", "sk-bob # Bob, the second", "sk-bo"):
            response = await client.get("/v1/models", headers={"x-api-key": key})
            assert response.status_code == 401
    assert len(scopes) == 5


def test_no_key_in_clear_is_kept_for_the_life_of_the_app(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("sk-of-a-file")
    app, _ = make_app(api_key=KEY, api_key_file=file)
    seen: list[object] = [app.state.ingle, app.user_middleware]
    for found in seen:
        assert KEY not in repr(found) and "sk-of-a-file" not in repr(found)
    held = set(gc.get_referents(app.state.ingle.keys.__dict__["_hashes"]))
    assert held == {hashlib.sha256(key.encode()).digest() for key in (KEY, "sk-of-a-file")}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no key"),
        (b"# only\n", "holds no key"),
        (b"sk-1\nsk 2\n", "line 2 of"),
        (b"schl\xfcssel", "more than ASCII"),
        (None, "cannot read the key file"),
    ],
)
def test_a_key_file_that_protects_nothing_is_refused(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        make_app(api_key_file=file)
    assert "sk" not in caught.value.message


async def test_the_document_of_the_api_is_for_those_with_a_key(serve: Serve) -> None:
    async with serve() as client:
        assert "/v1/models" in (await client.get("/openapi.json")).json()["paths"]
    async with serve(api_key=KEY) as client:
        assert (await client.get("/openapi.json")).status_code == 401
        asked = await client.get("/openapi.json", headers={"authorization": f"Bearer {KEY}"})
        assert asked.status_code == 200


def test_keys_are_compared_in_constant_time() -> None:
    """Whole digests, all of them, by the one function made for it."""
    source = inspect.getsource(keys.ApiKeys.scope)
    assert "hmac.compare_digest(digest, own) for own in self._hashes" in source
    assert "return" not in source.partition("compare_digest")[0], "an early exit"


async def test_a_body_is_not_waited_for_where_the_key_is_wrong(serve: Serve) -> None:
    """Nor is the rest received: the connection is closed, unless the body is small."""
    read = 0

    async def body(pieces: int) -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(pieces):
            read += 1
            yield b"x" * 1024

    async with serve(api_key=KEY) as client:
        for headers in ({"content-length": str(30 << 20)}, {}):
            refused = await client.post("/v1/chat/completions", content=body(3), headers=headers)
            assert (refused.status_code, refused.headers["connection"]) == (401, "close")
        small = await client.post("/v1/chat/completions", json=HI)
        assert small.status_code == 401 and "connection" not in small.headers
        for method, url in (("POST", "/nowhere"), ("DELETE", "/v1/chat/completions")):
            headers = {"content-length": str(1 << 20)}
            gone = await client.request(method, url, content=body(2), headers=headers)
            assert gone.headers["connection"] == "close"
    assert read == 0


async def test_a_large_body_that_was_read_leaves_the_connection_open(serve: Serve) -> None:
    large = {"messages": [{"role": "user", "content": "word " * 40_000}]}
    async with serve(api_key=KEY) as client:
        answer = await client.post("/v1/chat/completions", json=large, headers={"x-api-key": KEY})
    assert answer.status_code == 200
    assert "connection" not in answer.headers
