"""Debian's Prometheus on the files of deploy/, beside an Ingle that has much to tell."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from tests.e2e.conftest import Server, free_port, until

from .conftest import DEPLOY, found

SECONDS = 40
SHARED = "a beginning that many have and that is read once " * 4


class Prometheus(NamedTuple):
    base: str

    def values(self, query: str) -> list[float]:
        """Of every series that the query finds now."""
        told = self._ask("query", query=query)
        return [float(series["value"][1]) for series in told["result"]]

    def series(self, query: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask(
            "query_range", query=query, start=str(start), end=str(end), step=str(step)
        )["result"]
        return found

    def _ask(self, what: str, **parameters: str) -> Any:
        answer = httpx2.get(f"{self.base}/api/v1/{what}", params=parameters, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@contextlib.contextmanager
def prometheus(server: Server, directory: Path) -> Iterator[Prometheus]:
    """Asks the server every second."""
    text = (DEPLOY / "prometheus/prometheus.yml").read_text()
    text = text.replace("ingle:8000", f"127.0.0.1:{server.port}").replace("10s", "1s")
    (directory / "prometheus.yml").write_text(text)
    (directory / "alerts.yml").write_text((DEPLOY / "prometheus/alerts.yml").read_text())
    port = free_port()
    command = [found("prometheus", "prometheus"), f"--web.listen-address=127.0.0.1:{port}"]
    command += [f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/db"]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen([*command, "--log.level=warn"], stdout=log, stderr=log)
    base = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _is_ready(base), 30)
        yield Prometheus(base)
    finally:
        process.terminate()
        process.wait(20)


def _is_ready(base: str) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"{base}/-/ready", timeout=2).status_code == 200
    return False


def live(server: Server) -> None:
    """What makes every metric move: chats that share a beginning, one that leaves, one too many at
    once, an engine that dies, a model that goes and comes."""
    with server.client() as client:
        for number in range(6):
            turns = [{"role": "user", "content": f"{SHARED} {number}"}]
            for model in ("echo", "other"):
                client.chat.completions.create(model=model, messages=turns, max_tokens=40)
        stream = client.chat.completions.create(model="echo", messages=turns, stream=True)
        next(iter(stream))
        stream.close()
    body = {"model": "nobody", "messages": []}
    assert httpx2.post(f"{server.base}/v1/chat/completions", json=body).status_code == 400
    url = f"{server.base}/admin/models"
    httpx2.post(f"{url}/unload", json={"model": "other"}, timeout=30).raise_for_status()
    httpx2.post(f"{url}/load", json={"model": "other"}, timeout=30).raise_for_status()
    os.kill(server.engines()[0].pid, signal.SIGKILL)
    until(server.ready, 30)


def panels() -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Title, unit, and the queries with their legends, as Grafana fills them in."""
    told = json.loads((DEPLOY / "grafana/ingle.json").read_text())
    return [
        (
            panel["title"],
            panel["fieldConfig"]["defaults"]["unit"],
            [(_filled(target["expr"]), target["legendFormat"]) for target in panel["targets"]],
        )
        for panel in told["panels"]
    ]


def _filled(query: str) -> str:
    filled = query.replace("$__rate_interval", "30s").replace('=~"$model"', '=~".*"')
    assert "$" not in filled, filled
    return filled


def measured(expression: str) -> str:
    """What an alert compares, without what with."""
    found = re.fullmatch(r"(.*\S)\s*(?:>|<|==)\s*[\d.]+\s*", expression, re.DOTALL)
    assert found, expression
    return found[1]
