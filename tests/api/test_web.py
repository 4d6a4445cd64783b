"""The page's files: to browsers, under a strict policy, and no other file."""

from __future__ import annotations

import pytest

from .conftest import Serve

pytestmark = pytest.mark.anyio

PAGE = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_the_page_is_for_browsers_and_others_hear_that_there_is_a_server(
    serve: Serve,
) -> None:
    async with serve() as client:
        page = await client.get("/", headers=PAGE)
        plain = await client.get("/")
    assert page.headers["content-type"].startswith("text/html") and "<title>Ingle" in page.text
    assert plain.json()["name"] == "ingle"
    assert all("accept" in answer.headers["vary"] for answer in (page, plain))


@pytest.mark.parametrize("path", ["/", "/docs", "/web/main.js", "/web/vendor/purify.js"])
async def test_no_code_but_its_own_is_let_in(serve: Serve, path: str) -> None:
    async with serve() as client:
        answer = await client.get(path, headers=PAGE)
        again = await client.get(path, headers=PAGE | {"if-none-match": answer.headers["etag"]})
    parts = [part.split() for part in answer.headers["content-security-policy"].split(";")]
    policy = {name: sources for name, *sources in parts}
    assert policy["default-src"] == ["'none'"] and policy["frame-ancestors"] == ["'none'"]
    assert policy["script-src"] == policy["connect-src"] == ["'self'"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert (again.status_code, again.content) == (304, b"")


async def test_scripts_are_scripts_to_the_browser(serve: Serve) -> None:
    """A module of another type is not run."""
    async with serve() as client:
        for name, kind in (("main.js", "text/javascript"), ("style.css", "text/css")):
            answer = await client.get(f"/web/{name}")
            assert answer.headers["content-type"].startswith(kind)


@pytest.mark.parametrize(
    "name", ["../app.py", "%2e%2e/app.py", "..%2f..%2fpyproject.toml", "/etc/passwd", "", "none.js"]
)
async def test_no_other_file_is_served(serve: Serve, name: str) -> None:
    async with serve() as client:
        assert (await client.get(f"/web/{name}")).status_code == 404
