"""The command as a user runs it: a process, its exit code and what it writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import server

ROOT = str(Path(server.__file__).parents[1])
"""The tree under test, wherever another one may be installed."""


def ingle(
    home: Path, *words: str, piped: str | bytes | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Without `piped` there is nothing on its standard input."""
    return subprocess.run(
        command(*words),
        cwd=home,
        env=environment(home, **variables),
        input=piped.decode("latin-1") if isinstance(piped, bytes) else piped or "",
        encoding="latin-1" if isinstance(piped, bytes) else "utf-8",
        capture_output=True,
        timeout=60,
    )


def command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-W", "error", "-m", "server", *words]


def environment(home: Path, **variables: str) -> dict[str, str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("INGLE_")}
    environ |= {"HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1", "PYTHONPATH": ROOT}
    environ |= variables
    for name in list(environ):
        if name.startswith(("XDG_", "HF_", "OLLAMA_", "LLAMA_CACHE")) and name not in variables:
            del environ[name]
    return environ


def refusal(home: Path, *words: str, **variables: str) -> str:
    done = ingle(home, *words, **variables)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, "one line, no traceback"
    return done.stderr.removeprefix("error: ").strip()
