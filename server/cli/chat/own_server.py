"""A server for one conversation: a process that `ingle serve` would be, and nobody else may ask."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from server.cli.remote import Refused, Remote, Unreachable
from server.core.errors import StartupError
from server.core.interpreter import same_code

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.05
_STOP_SECONDS = 10.0


@contextmanager
def own_server(
    model: str, flags: Mapping[str, str | None], config: Path | None
) -> Iterator[Remote]:
    """Of `model` alone, once it answers; it stops with this process. Raises StartupError.

    `flags` are those of `serve`; None is not given. It listens on a free port of this machine,
    under a key that only this process knows.
    """
    key, port = secrets.token_urlsafe(24), _free_port()
    given = {**flags, "host": "127.0.0.1", "port": str(port), "log-level": "warning"}
    words = [f"--{name}={value}" for name, value in given.items() if value is not None]
    if config is not None:
        words.append(f"--config={config}")
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve", *words, "--", model],
            env=_environment(key),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,  # Ctrl-C is meant for an answer
            preexec_fn=_end_with_parent(),
        )
        try:
            with Remote(f"http://127.0.0.1:{port}", key) as remote:
                _wait_until_ready(remote, process, log.fileno())
                yield remote
        finally:
            _end(process)


def _environment(key: str) -> dict[str, str]:
    """Other names of other models would be a mistake here."""
    return same_code() | {
        "INGLE_API_KEY": key,
        "INGLE_ALIASES": "{}",
        "INGLE_DRAIN_SECONDS": "0",
        "INGLE_LOG_FORMAT": "json",
    }


def _wait_until_ready(remote: Remote, process: subprocess.Popen[bytes], log: int) -> None:
    while process.poll() is None:
        with suppress(Unreachable, Refused):
            remote.get("/readyz")
            return
        time.sleep(_POLL_SECONDS)
    raise StartupError(_last_words(log) or f"the engine ended with code {process.returncode}")


def _last_words(log: int) -> str:
    """The error that `serve` ended with, or the last line there is."""
    lines = os.pread(log, 1 << 20, 0).decode(errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _end_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
