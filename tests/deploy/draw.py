"""`python -m tests.deploy.draw MODEL.gguf OUT.png`: the dashboard's panels without Grafana.

A server of that model is used for a while, Debian's Prometheus asks it, and each panel is drawn
from what its own queries find there.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import matplotlib.pyplot as plt

from tests.e2e.conftest import Server, _serving, until

from .prometheus import Prometheus, panels, prometheus

SECONDS = 90
COLUMNS = 3
SYSTEM = "You are a patient gardener who answers in one sentence and likes plain words. " * 8


def main(model: str, out: str) -> None:
    with _serving() as start, tempfile.TemporaryDirectory() as directory:
        server = start(f"garden={model}", slots=4, ctx=1024, max_waiting=1, memory_mb=2048)
        with prometheus(server, Path(directory)) as store:
            began = time.time()
            with ThreadPoolExecutor(6) as pool:
                list(pool.map(lambda number: _ask(server, number, began + SECONDS), range(6)))
            _draw(store, began, time.time(), out)


def _ask(server: Server, number: int, until_when: float) -> None:
    """One of those who talk all the time; the first one's engine dies once."""
    asked, killed = 0, number != 0
    while time.time() < until_when:
        asked += 1
        turns = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"What grows well at place {number}-{asked}?"},
        ]
        body: dict[str, Any] = {"messages": turns, "max_tokens": 40}
        answer = httpx2.post(f"{server.base}/v1/chat/completions", json=body, timeout=60)
        if answer.status_code == 503:
            time.sleep(2)
        if not killed and time.time() > until_when - SECONDS / 2:
            killed = True
            os.kill(server.engines()[0].pid, signal.SIGKILL)
            until(server.ready, 60)


def _draw(store: Prometheus, start: float, end: float, out: str) -> None:
    shown = panels()
    rows = -(-len(shown) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(5 * COLUMNS, 2.6 * rows), squeeze=False)
    for axis, (title, unit, targets) in zip(axes.flat, shown, strict=False):
        for query, legend in targets:
            for series in store.series(query, start, end, 1):
                at = [float(when) - start for when, _ in series["values"]]
                values = [float(value) for _, value in series["values"]]
                axis.plot(at, values, label=_filled(legend, series["metric"]))
        axis.set_title(f"{title} ({unit})" if unit != "short" else title, fontsize=10, loc="left")
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=6, loc="upper left")
    figure.tight_layout()
    figure.savefig(out, dpi=80)


def _filled(legend: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    return legend


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
