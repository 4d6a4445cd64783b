"""The terminal's commands against the real server and its /admin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import ingle, refusal

from .conftest import Start

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def test_models_are_seen_loaded_and_stopped(start: Start, tmp_path: Path) -> None:
    server = start("echo=echo:mb=100", "b=echo:mb=100", memory_mb=150)
    url = ("--url", server.base)

    def status() -> dict[str, str]:
        told = json.loads(ingle(tmp_path, "ps", "--json", *url).stdout)
        return {model["id"]: model["status"] for model in told["data"]}

    assert status() == {"echo": "loaded", "b": "unloaded"}
    assert ingle(tmp_path, "load", "b", "--keep-alive", "10m", *url).stdout == "b is loaded\n"
    assert status() == {"echo": "unloaded", "b": "loaded"}
    row = next(r for r in ingle(tmp_path, "ps", *url).stdout.splitlines() if r.startswith("b "))
    assert row.endswith("in 10 min")
    assert ingle(tmp_path, "stop", "b", *url).stdout == "b is out of memory\n"
    assert status() == {"echo": "unloaded", "b": "unloaded"}
    assert refusal(tmp_path, "load", "bb", *url).startswith("the server has no model bb; did you")


def test_an_answer_of_a_server_that_runs(start: Start, tmp_path: Path) -> None:
    server = start("echo=echo:", api_key="api", admin_key="admin")
    url = ("--url", server.base)
    done = ingle(tmp_path, "run", "echo", "hello there", *url, INGLE_API_KEY="api")
    assert (done.returncode, done.stdout) == (0, "hello there\n")
    assert ingle(tmp_path, "ps", *url, INGLE_ADMIN_KEY="admin").returncode == 0
    assert "INGLE_ADMIN_KEY" in refusal(tmp_path, "ps", *url)
    assert ingle(tmp_path, "reload", *url, INGLE_ADMIN_KEY="admin").returncode == 0
