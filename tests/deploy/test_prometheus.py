"""Each panel and each alert finds data in what a real Prometheus has of a real server."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import Start, until

from .conftest import DEPLOY
from .prometheus import SECONDS, live, measured, panels, prometheus

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(180)]

ALERTS = DEPLOY / "prometheus/alerts.yml"


def test_every_panel_and_every_alert_finds_data(start: Start, tmp_path: Path) -> None:
    server = start("echo=echo:draft", "other=echo:", ctx=1024)
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    queries = {f"alert {rule['alert']}": measured(rule["expr"]) for rule in rules}
    for title, _, targets in panels():
        queries |= {f"{title}: {legend}": query for query, legend in targets}
    with prometheus(server, tmp_path) as store:
        until(lambda: store.values('count_over_time(up{job="ingle"}[1m])') >= [2.0], 30)
        live(server)
        missing = dict(queries)

        def all_found() -> bool:
            for name, query in list(missing.items()):
                if any(math.isfinite(value) for value in store.values(query)):
                    del missing[name]
            return not missing

        try:
            until(all_found, SECONDS)
        except AssertionError:
            assert not missing
        rises = "increase(ingle_engine_restarts_total[1m])"
        until(lambda: max(store.values(rises), default=0) > 0, 20)
        assert store.values('up{job="ingle"}') == [1.0]
    assert len(queries) > 35
