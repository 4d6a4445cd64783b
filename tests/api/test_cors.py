"""Web pages: which may use the API, on every answer, and what a preflight is told."""

from __future__ import annotations

import httpx2
import pytest

from .conftest import PAGE, Serve

pytestmark = pytest.mark.anyio

STAINLESS = (
    "authorization, content-type, x-stainless-lang, x-stainless-package-version, x-stainless-os, "
    "x-stainless-arch, x-stainless-runtime, x-stainless-runtime-version, "
    "x-stainless-retry-count, x-stainless-timeout, openai-organization, openai-project"
)


async def preflight(client: httpx2.AsyncClient, origin: str, path: str) -> httpx2.Response:
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": STAINLESS,
    }
    return await client.options(path, headers=asked)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/models", "/health", "/metrics", "/no"])
async def test_a_preflight_needs_no_key_and_gets_the_headers_it_asked_for(
    serve: Serve, path: str
) -> None:
    async with serve(api_key="key") as client:
        response = await preflight(client, PAGE, path)
    assert response.status_code == 204
    headers = response.headers
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["access-control-allow-headers"] == STAINLESS
    assert {"GET", "POST"} <= set(headers["access-control-allow-methods"].split(", "))
    assert "access-control-allow-credentials" not in headers
    assert "Origin" in headers["vary"]
    assert headers["x-request-id"]


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost", True),
        ("https://localhost:8443", True),
        ("http://127.0.0.1:5173", True),
        ("http://[::1]:80", True),
        ("http://localhost.evil.com", False),
        ("http://localhost:3000.evil.com", False),
        ("http://localhost:80@evil.com", False),
        ("http://evil.com", False),
        ("http://127.0.0.1.nip.io", False),
        ("http://127.0.0.10", False),
        ("http://notlocalhost", False),
        ("null", False),
        ("", False),
        ("*", False),
    ],
)
async def test_by_default_only_pages_of_this_machine_may(
    serve: Serve, origin: str, allowed: bool
) -> None:
    async with serve() as client:
        asked = await preflight(client, origin, "/v1/models")
        answered = await client.get("/v1/models", headers={"origin": origin})
    assert (asked.status_code, answered.status_code) == (204, 200)
    for response in (asked, answered):
        names = [n for n in response.headers if n.startswith("access-control-")]
        assert bool(names) == allowed
        assert response.headers.get("access-control-allow-origin") == (origin if allowed else None)


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (("https://chat.example",), "https://chat.example", True),
        (("https://chat.example",), "https://chat.example:444", False),
        (("https://chat.example",), PAGE, False),
        (("localhost", "app://obsidian.md"), "app://obsidian.md", True),
        (("*",), "http://evil.com", True),
        (("null",), "null", True),
        (("none",), PAGE, False),
        ((), PAGE, False),
    ],
)
async def test_the_origins_are_a_setting(
    serve: Serve, origins: tuple[str, ...], origin: str, allowed: bool
) -> None:
    async with serve(cors_origins=origins) as client:
        response = await client.get("/v1/models", headers={"origin": origin})
    assert response.headers.get("access-control-allow-origin") == (origin if allowed else None)
    assert "access-control-allow-credentials" not in response.headers


async def test_what_a_page_may_read(serve: Serve) -> None:
    async with serve() as client:
        response = await client.get("/v1/models", headers={"origin": PAGE})
    exposed = set(response.headers["access-control-expose-headers"].split(", "))
    assert exposed >= {
        "x-request-id",
        "request-id",
        "openai-processing-ms",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-ratelimit-remaining-tokens",
    }
    assert "Origin" in response.headers["vary"]


async def test_a_page_outside_the_private_network_must_be_allowed_to(serve: Serve) -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-private-network": "true",
    }
    async with serve(cors_origins=("https://chat.example",)) as client:
        named = await client.options(
            "/v1/models", headers=asked | {"origin": "https://chat.example"}
        )
        other = await client.options("/v1/models", headers=asked | {"origin": "https://evil.com"})
    assert named.headers["access-control-allow-private-network"] == "true"
    assert "access-control-allow-private-network" not in other.headers
