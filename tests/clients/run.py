"""Runs the cases of clients, in groups: `python -m tests.clients.run GROUP[=VENV]…`.

A group is a folder here: of cases for the Python of a virtual environment, or for Node. The server
is this environment's, on engines that echo; the cases know it by its address alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Server

HERE = Path(__file__).parent
KNOBS = ("echo=echo:draft", "org/echo=echo:", "vec=echo:embed,size=48")
QUIET = {
    "DO_NOT_TRACK": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}
"""Clients that report to their makers unless told not to."""


def main() -> int:
    groups = [argument.partition("=") for argument in sys.argv[1:]]
    server = Server(KNOBS, {"ctx": 4096})
    try:
        server.wait_until_ready()
        environment = {**os.environ, **QUIET, "CLIENTS_BASE_URL": f"{server.base}/v1"}
        failed = [
            f"{group}{of}{venv}"
            for group, of, venv in groups
            if not _passes(_command(group, venv), environment)
        ]
    finally:
        server.stop()
    if failed or not groups:
        print("failed:", *(failed or ["no group named"]), file=sys.stderr)
    return bool(failed or not groups)


def _command(group: str, venv: str) -> list[str | Path]:
    folder = HERE / group
    if not venv:
        return ["node", "--test", "--test-reporter=spec", folder / "cases.mjs"]
    command = [Path(venv) / "bin" / "python", "-m", "pytest", "-q", "-c", HERE / "pytest.ini"]
    return [*command, "--confcutdir", HERE, folder]


def _passes(command: list[str | Path], environment: dict[str, str]) -> bool:
    """Also where there is no Node, which a machine may be without; make skips its packages too."""
    if command[0] == "node" and shutil.which("npm") is None:
        print("SKIPPED the openai package for JavaScript: no npm here", flush=True)
        return True
    return subprocess.run(command, env=environment, timeout=600).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
