"""What native code prints about a user's grammar or prompt reaches no log either."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.e2e.conftest import until
from tests.faults.canaries import CHAT, NASTY, SECRET, send_all

from .conftest import serving

pytestmark = pytest.mark.model


def _engine(port: str) -> int:
    """Of the server on this port."""
    for process in psutil.Process().children(recursive=True):
        parent = process.parent()
        if parent and "server.engine.worker" in process.cmdline() and port in parent.cmdline():
            return process.pid
    raise AssertionError("no engine")


def test_secrets_stay_out_of_the_log(
    model_path: Path, model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ("--slots", "2", "--ctx", "2048", "--log-level", "debug")
    with serving(model_path, *flags) as url:
        statuses = send_all(url, model)
        assert {200, 400, 404} <= set(statuses) and 500 not in statuses
        series = f'ingle_engine_restarts_total{{model_name="{model}",reason="SIGSEGV"}}'
        os.kill(_engine(url.rpartition(":")[2]), signal.SIGSEGV)
        until(lambda: f"{series} 1.0" in httpx2.get(f"{url}/metrics").text, 30)
        body = {"messages": [{"role": "user", "content": NASTY}], "max_tokens": 3}
        until(lambda: httpx2.post(f"{url}{CHAT}", json=body, timeout=60).status_code == 200, 60)
        metrics = httpx2.get(f"{url}/metrics").text
    err = capfd.readouterr().err
    events = [json.loads(line) for line in err.removesuffix("\n").split("\n")]
    assert SECRET not in err + metrics
    assert sum(event["event"] == "request" for event in events) > len(statuses)
    assert [event["reason"] for event in events if "reason" in event] == ["SIGSEGV"]
