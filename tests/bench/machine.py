"""What a comparison needs of this machine: the model, the peer's binaries, all versions."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.catalog import ModelStore, load_catalog, locate
from server.settings import load_settings

from .servers import environ

_ROOT = Path(__file__).parents[2]


def linked_model(word: str, home: Path) -> Path:
    """The model in a folder of its own, where no tuned profile lies beside it."""
    store = ModelStore(load_settings({}, None).models_dir)
    source = locate([word], load_catalog(), store)[0].path
    if not source.is_file():
        raise SystemExit(f"error: {source} does not exist; run `ingle pull {word}`")
    link = home / source.name
    link.symlink_to(source.resolve())
    return link


def peer_binaries(script: Path) -> Path:
    """Run the script that builds the peer; it prints the binaries' folder on its last line."""
    if not script.is_file():
        raise SystemExit(
            f"error: {script} does not exist; name a script that builds llama-server from the "
            "llama.cpp that llama-cpp-python carries, as in `make compare PEER_BUILD=…`"
        )
    print(f"{script}: builds once, some minutes", flush=True)
    done = subprocess.run([str(script.resolve())], stdout=subprocess.PIPE, text=True)
    lines = done.stdout.split("\n") if done.returncode == 0 else []
    folder = next((Path(line) for line in reversed(lines) if line.strip()), None)
    if folder is None or not (folder / "llama-server").exists():
        raise SystemExit(f"error: {script} failed with exit code {done.returncode}")
    return folder


def can_tune() -> bool:
    done = subprocess.run([*_INGLE, "tune", "--help"], capture_output=True)
    return done.returncode == 0


@contextmanager
def tuned(model: Path, home: Path) -> Iterator[None]:
    """`ingle tune --for throughput` while it lasts, taken back after."""
    _tune(model, home, "--for", "throughput", "--yes")
    try:
        yield
    finally:
        _tune(model, home, "--revert", "--yes")


def about(model: Path, binaries: Path) -> dict[str, Any]:
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "machine": platform.platform(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "ingle": _said("git", "-C", str(_ROOT), "describe", "--always", "--dirty"),
        "peer": _said(str(binaries / "llama-server"), "--version").split("\n")[0],
        "model": model.name,
        "sha256": digest,
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


_INGLE = (sys.executable, "-m", "server")


def _tune(model: Path, home: Path, *words: str) -> None:
    command = [*_INGLE, "tune", str(model), *words]
    subprocess.run(command, env=environ(home), check=True)


def _said(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip()
