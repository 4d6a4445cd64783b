"""Every file under deploy/ is one that its program takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.settings import Settings

from .conftest import DEPLOY, ROOT, found

pytestmark = pytest.mark.deploy

RESOURCES = [
    part
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for part in yaml.safe_load_all(path.read_text())
]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def ran(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_all_yaml_is_well_written() -> None:
    ran(sys.executable, "-m", "yamllint", "--strict", "-c", ".yamllint.yaml", "deploy")


def test_the_dockerfile_is_well_written() -> None:
    """Debian's packages are those of its release, and so have no versions here."""
    ran(str(Path(sys.executable).with_name("hadolint")), "--ignore", "DL3008", "Dockerfile")


def test_the_image_has_the_engine_that_is_tested() -> None:
    (engine,) = re.findall(r"^ARG ENGINE=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert f'"{engine}",' in (ROOT / "pyproject.toml").read_text()


def test_prometheus_takes_its_files() -> None:
    promtool = found("promtool", "prometheus")
    ran(promtool, "check", "config", "deploy/prometheus/prometheus.yml")
    ran(promtool, "check", "rules", "deploy/prometheus/alerts.yml")
    ran(promtool, "test", "rules", "tests/deploy/alerts.test.yml")


def test_systemd_takes_the_service(tmp_path: Path) -> None:
    analyze = found("systemd-analyze", "systemd")
    unit = (DEPLOY / "ingle.service").read_text()
    file = tmp_path / "ingle.service"
    file.write_text(unit.replace("/opt/ingle/bin/ingle", sys.executable))
    ran(analyze, "verify", "--man=no", str(file))
    wrong = tmp_path / "wrong.service"
    wrong.write_text(unit.replace("Type=notify", "Type=shout"))
    done = subprocess.run([analyze, "verify", str(wrong)], capture_output=True, text=True)
    assert "shout" in done.stderr, "it verifies nothing"


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda one: one["kind"])
def test_kubernetes_takes_the_resources(resource: dict[str, Any]) -> None:
    if resource["kind"] == "ServiceMonitor":  # not Kubernetes' own
        assert resource["apiVersion"] == "monitoring.coreos.com/v1"
        (service,) = (one for one in RESOURCES if one["kind"] == "Service")
        spec = resource["spec"]
        assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert spec["endpoints"][0]["port"] in [p["name"] for p in service["spec"]["ports"]]
        return
    import kubernetes_validate  # of the extra `deploy`

    kubernetes_validate.validate(resource, "1.31", strict=True)


def test_what_stops_a_container_leaves_time_to_end() -> None:
    most = Settings().drain_seconds
    grace = int(COMPOSE["services"]["ingle"]["stop_grace_period"].removesuffix("s"))
    (deployment,) = (one for one in RESOURCES if one["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert grace > most + 10 and pod["terminationGracePeriodSeconds"] > most + 10


def test_settings_that_are_named_exist() -> None:
    """In variables, and in what the files say in words."""
    known = {f"INGLE_{name.upper()}" for name in Settings.model_fields}
    files = [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".png"]
    texts = [path.read_text() for path in files]
    texts.append((ROOT / "Dockerfile").read_text())
    named = {name for text in texts for name in re.findall(r"INGLE_[A-Z_]+", text)}
    assert named - known <= {"INGLE_PORT_BIND"} and "INGLE_MODELS_DIR" in named


def test_what_compose_mounts_is_there() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), volume
            else:
                assert source in COMPOSE["volumes"], volume


def test_the_dashboard_has_a_place_for_each_panel() -> None:
    panels = json.loads((DEPLOY / "grafana/ingle.json").read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places) > 12
    assert len({panel["id"] for panel in panels}) == len(panels)
