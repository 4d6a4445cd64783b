"""Streams through the reverse proxies that deploy/ has examples for."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.e2e.conftest import Server, Start, free_port, until

from .conftest import DEPLOY, found

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(90)]

NAME = "ingle.example.org"
TEXT = "one word after the other, and no hurry at all"


def nginx(server: Server, directory: Path) -> tuple[list[str], str]:
    """The example, but for TLS, whose certificate this machine has not."""
    port = free_port()
    lines = (DEPLOY / "nginx.conf").read_text().splitlines()
    lines = [line for line in lines if "ssl_certificate" not in line]
    text = "\n".join(lines).replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    places = "\n".join(
        f"{kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = directory / "nginx.conf"
    file.write_text(
        f"pid {directory}/pid; error_log {directory}/error.log; events {{}}\n"
        f"http {{ access_log off; {places}\n{text}\n}}\n"
    )
    return [found("nginx", "nginx-light"), "-c", str(file), "-g", "daemon off;"], str(port)


def caddy(server: Server, directory: Path) -> tuple[list[str], str]:
    """The example without TLS."""
    port = free_port()
    text = (DEPLOY / "Caddyfile").read_text()
    text = text.replace(f"{NAME} {{", f"http://:{port} {{\n\tbind 127.0.0.1")
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    file = directory / "Caddyfile"
    file.write_text("{\n\tadmin off\n}\n" + text)
    command = [found("caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]
    return command, str(port)


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def proxied(
    request: pytest.FixtureRequest, start: Start, tmp_path: Path
) -> Iterator[tuple[Server, httpx2.Client]]:
    make: Callable[[Server, Path], tuple[list[str], str]] = request.param
    server = start("echo=echo:rate=20", allowed_hosts=NAME)
    command, port = make(server, tmp_path)
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            cwd=tmp_path,
            env={"HOME": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/bin"},
        )
    try:
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"host": NAME}, timeout=30
        ) as client:
            until(lambda: _answers(client), 15)
            yield server, client
    finally:
        process.terminate()
        process.wait(10)


def _answers(client: httpx2.Client) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return client.get("/livez").status_code == 200
    return False


def test_words_come_as_they_are_said_and_who_leaves_is_noticed(
    proxied: tuple[Server, httpx2.Client],
) -> None:
    server, client = proxied
    body = {"messages": [{"role": "user", "content": TEXT}], "stream": True, "temperature": 0}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = (line for line in answer.iter_lines() if '"content"' in line)
        next(line for line in lines if '"content": ""' not in line)
        assert server.metric("ingle_requests_running") == 1, "its first word came with its last"
        assert server.metric("ingle_generated_tokens_total") == 0
    until(lambda: server.metric("ingle_requests_running") == 0, 1.5)
    assert server.outcomes()["cancelled"] == 1


def test_it_is_one_server_to_clients_and_closed_to_who_would_look_after_it(
    proxied: tuple[Server, httpx2.Client],
) -> None:
    _, client = proxied
    assert client.get("/v1/models").json()["data"][0]["id"] == "echo"
    assert client.get("/", headers={"accept": "text/html"}).text.startswith("<!doctype html>")
    refused = client.get("/admin/models")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admin_only")
    json_type = {"content-type": "application/json"}
    large = client.post("/v1/chat/completions", content=b"x" * (5 << 20), headers=json_type)
    assert large.status_code == 413, large.text
