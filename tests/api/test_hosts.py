"""Under which names the server answers: a page's name that points here is none of them."""

from __future__ import annotations

from collections.abc import Sequence

import httpx2
import pytest
from fastapi.routing import iter_route_contexts

from server.api import health
from server.api.hosts import is_loopback
from tests.fakes import FakeEngine

from .conftest import Serve, make_app

pytestmark = pytest.mark.anyio

LOCAL = ("localhost", "localhost:8000", "LocalHost", "localhost.", "ui.localhost", "127.0.0.1:80")
LOCAL += ("127.8.9.1", "[::1]", "[::1]:8000", "[::ffff:127.0.0.1]")
FOREIGN = ("evil.com", "localhost.evil.com", "127.0.0.1.nip.io", "evil-localhost", "192.168.0.7")
FOREIGN += ("[::2]", "0.0.0.0", "rebind.it:8000", "example.localhost.evil.com")
MALFORMED = ("x/health?", "a@b", "a b", "a,b", "", ":", ":8000", "a:b", "a:1:2", "[::1", "::1")
MALFORMED += ("localhost#", "localhost:80/", "http://localhost", "localhost:123456", "schlo\xdf")


async def _status(client: httpx2.AsyncClient, host: str, path: str = "/v1/models") -> int:
    response = await client.get(path, headers={"host": host.encode("latin-1")})
    if response.status_code in (400, 403):
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert response.headers["x-request-id"]
        assert "access-control-allow-origin" not in response.headers
    return response.status_code


@pytest.mark.parametrize("host", LOCAL)
async def test_a_local_server_answers_under_local_names(serve: Serve, host: str) -> None:
    async with serve() as client:
        assert await _status(client, host) == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_and_under_no_other(serve: Serve, host: str) -> None:
    async with serve() as client:
        assert await _status(client, host) == 403
    async with serve(api_key="sk", host="127.0.0.2") as client:
        assert await _status(client, host) == 403


@pytest.mark.parametrize("host", MALFORMED)
async def test_what_is_no_host_is_refused_on_every_bind(serve: Serve, host: str) -> None:
    async with serve() as client:
        assert await _status(client, host) == 400
        assert await _status(client, host, "/livez") == 400
    async with serve(host="0.0.0.0") as client:
        assert await _status(client, host) == 400


async def test_every_route_asks_for_the_name_and_says_what_to_do(serve: Serve) -> None:
    app, _ = make_app()
    paths = {context.path for context in iter_route_contexts(app.routes)} | {"/docs", "/nowhere"}
    assert {"/metrics", "/v1/chat/completions"} <= paths
    engine = FakeEngine()
    async with serve(engine, cors_origins=("*",)) as client:
        for path in paths - health.PATHS:
            url = path.replace("{model_id:path}", "fake")
            for method in ("GET", "POST", "OPTIONS", "HEAD"):
                response = await client.request(method, url, headers={"host": "evil.com"})
                assert response.status_code == 403, (method, path)
            error = (await client.get(url, headers={"host": "evil.com"})).json()["error"]
            assert error["code"] == "host_not_allowed"
            assert "allowed_hosts" in error["message"] and "'evil.com'" in error["message"]
    assert not engine.requests


async def test_a_probe_may_call_the_server_as_it_likes(serve: Serve) -> None:
    async with serve(host="0.0.0.0", api_key="sk", allowed_hosts=("chat.example",)) as client:
        for path in health.PATHS:
            assert await _status(client, "10.1.2.3:8000", path) == 200
        assert await _status(client, "10.1.2.3:8000", "/metrics") == 403


async def test_preflights_of_a_rebound_page_get_nothing(serve: Serve) -> None:
    asked = {"host": "evil.com", "origin": "http://evil.com"}
    async with serve(cors_origins=("*",)) as client:
        response = await client.options(
            "/v1/models", headers=asked | {"access-control-request-method": "POST"}
        )
    assert response.status_code == 403
    assert not [name for name in response.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("settings", "host", "status"),
    [
        ({"host": "0.0.0.0", "api_key": "sk"}, "evil.com", 401),
        ({"host": "::", "api_key": "sk"}, "evil.com", 401),
        ({"host": "0.0.0.0", "insecure": True}, "evil.com", 200),
        ({"host": "0.0.0.0", "allowed_hosts": ("box.lan",)}, "evil.com", 403),
        ({"host": "0.0.0.0", "allowed_hosts": ("box.lan",)}, "box.lan:8000", 200),
        ({"host": "0.0.0.0", "allowed_hosts": ("box.lan",)}, "localhost", 200),
        ({"allowed_hosts": ("Chat.Example",)}, "chat.example", 200),
        ({"allowed_hosts": ("chat.example",)}, "a.chat.example", 403),
        ({"allowed_hosts": ("*.example",)}, "a.chat.example", 200),
        ({"allowed_hosts": ("*.example",)}, "chat.example.", 200),
        ({"allowed_hosts": ("*.example",)}, "example", 403),
        ({"allowed_hosts": ("*.example",)}, "chatexample", 403),
        ({"allowed_hosts": ("*",)}, "evil.com", 200),
        ({"allowed_hosts": ("[fd00::7]",)}, "[fd00::7]:8000", 200),
        ({"allowed_hosts": ("fd00::7",)}, "[fd00::7]", 200),
        ({"host": "127.1.2.3"}, "127.1.2.3", 200),
    ],
    ids=str,
)
async def test_the_names_are_a_setting(
    serve: Serve, settings: dict[str, object], host: str, status: int
) -> None:
    async with serve(**settings) as client:
        assert await _status(client, host) == status


async def _raw_status(version: str, hosts: Sequence[bytes]) -> int:
    """Of a request as an HTTP parser gives it, with any number of Host headers."""
    app, _ = make_app()
    sent: list[dict[str, object]] = []
    scope = {"type": "http", "http_version": version, "method": "GET", "path": "/v1/models"}
    scope |= {"raw_path": b"/v1/models", "query_string": b"", "root_path": "", "scheme": "http"}
    scope |= {"headers": [(b"host", host) for host in hosts], "client": None, "server": None}

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    status = sent[0]["status"]
    assert isinstance(status, int)
    return status


async def test_there_is_one_host_but_old_protocols_may_leave_it_out() -> None:
    assert await _raw_status("1.1", [b"localhost"]) == 200
    assert await _raw_status("1.1", []) == 400
    assert await _raw_status("1.1", [b"localhost", b"localhost"]) == 400
    assert await _raw_status("1.1", [b"localhost", b"evil.com"]) == 400
    assert await _raw_status("1.0", []) == 200
    assert await _raw_status("1.0", [b"evil.com"]) == 403


@pytest.mark.parametrize(
    ("host", "loops"),
    [
        ("127.0.0.1", True),
        ("127.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("0", False),
        ("::", False),
        ("::ffff:0.0.0.0", False),
        ("192.0.2.7", False),
        ("no such name", False),
    ],
)
def test_which_binds_only_this_machine_reaches(host: str, loops: bool) -> None:
    assert is_loopback(host) == loops
