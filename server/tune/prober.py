"""The measuring processes: one a model file, started when asked, replaced when one dies."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import msgspec
import psutil

from server.core.errors import IngleError
from server.core.interpreter import same_code
from server.engine.spawned import BARRIERS
from server.llama.machine import available_memory
from server.llama.probe import Answer, Encode, Refused, Request

COMMAND = [sys.executable, "-m", "server.llama.measure"]

_LOAD_SECONDS = 1.0
_MEASURE_SECONDS = 600.0
_ENCODE_SECONDS = 3600.0
_NEED_PER_BYTE = 2.1
"""A repacked model is in memory twice: the mapped file and the copy."""
_NEED_FIXED = 512 << 20


class ProbeFailed(IngleError):
    """A request that was refused, or that its process did not survive."""


class Measuring(Protocol):
    def ask(self, request: Request) -> Answer:
        """Blocks until it is done. Raises ProbeFailed."""
        ...

    def other_load(self) -> float:
        """The share of the processor, 0 to 1, that others take while nothing is measured."""
        ...

    def close(self) -> None: ...


class Prober:
    """Keeps a process for each model file while memory allows, so that its model stays loaded."""

    def __init__(self) -> None:
        self._probes: dict[str, _Probe] = {}

    def ask(self, request: Request) -> Answer:
        path = request.source if isinstance(request, Encode) else request.config.path
        probe = self._probes.pop(path, None) or self._start(path)
        self._probes[path] = probe
        limit = _ENCODE_SECONDS if isinstance(request, Encode) else _MEASURE_SECONDS
        try:
            answer = probe.ask(request, limit)
        except ProbeFailed:
            self._probes.pop(path).close()
            raise
        if isinstance(request, Encode):
            self._probes.pop(path).close()
        if isinstance(answer, Refused):
            raise ProbeFailed(answer.message)
        return answer

    def other_load(self) -> float:
        return psutil.cpu_percent(_LOAD_SECONDS) / 100

    def close(self) -> None:
        while self._probes:
            self._probes.popitem()[1].close()

    def _start(self, path: str) -> _Probe:
        """The process used longest ago goes first when memory is short."""
        need = _need(path)
        while self._probes and available_memory() < need:
            self._probes.pop(next(iter(self._probes))).close()
        if available_memory() < need:
            raise ProbeFailed(f"too little memory: about {need / 1e9:.2f} GB are needed")
        return _Probe()


class _Probe:
    def __init__(self) -> None:
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=BARRIERS | same_code(),
        )

    def ask(self, request: Request, limit: float) -> Answer:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        with self._deadline(limit):
            try:
                stdin.write(msgspec.json.encode(request) + b"\n")
                stdin.flush()
                line = stdout.readline()
            except OSError:
                line = b""
        if not line.endswith(b"\n"):
            raise ProbeFailed(f"its process ended ({self._how_it_ended()})")
        try:
            answer: Answer = msgspec.json.decode(line, type=Answer)
        except msgspec.MsgspecError as error:
            raise ProbeFailed(f"its process answered nonsense ({error})") from None
        return answer

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self._process.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return f"{how}: {lines[-1]}" if lines else how

    def close(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._complaints):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
        self._process.wait()


def _need(path: str) -> int:
    size = Path(path).stat().st_size if Path(path).exists() else 0
    return int(size * _NEED_PER_BYTE) + _NEED_FIXED
