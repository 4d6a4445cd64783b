"""Runs `cases.py` with the Python of each virtual environment: `python -m tests.sdk.run VENV…`.

The server is this environment's, on engines that echo; the cases know it by its address alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Server

HERE = Path(__file__).parent


def main() -> int:
    venvs = sys.argv[1:]
    server = Server(("echo=echo:draft", "org/echo=echo:", "vec=echo:embed,size=48"), {"ctx": 1024})
    try:
        server.wait_until_ready()
        failed = [venv for venv in venvs if _cases(Path(venv), f"{server.base}/v1")]
    finally:
        server.stop()
    if failed or not venvs:
        print("failed:", *(failed or ["no virtual environment named"]), file=sys.stderr)
    return bool(failed or not venvs)


def _cases(venv: Path, base: str) -> int:
    command = [venv / "bin" / "python", "-m", "pytest", "-q", "-c", HERE / "pytest.ini"]
    command += ["--confcutdir", HERE, HERE / "cases.py"]
    return subprocess.run(command, env={**os.environ, "SDK_BASE_URL": base}, timeout=300).returncode


if __name__ == "__main__":
    sys.exit(main())
