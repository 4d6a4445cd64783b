"""A process for work that cannot be interrupted: it answers in time, or is ended.

Questions and answers are frames on its standard input and output: four bytes of length, content.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import IO

from .errors import EngineError
from .interpreter import same_code
from .secrecy import leave_no_dump

SOON = 0.15
"""Seconds after which the process gives way to those that compute tokens."""
_GIVE_WAY = 10
_START_SECONDS = 20.0
_LENGTH = 4


class Child:
    """`python -m MODULE ARGUMENTS`, which calls `answer_questions`. One thread at a time."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = (sys.executable, "-m", module, *arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._up = self._gave_way = False

    def start(self) -> None:
        """Does not wait until it is up."""
        self._up = self._gave_way = False
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=same_code(),
        )

    def ask(self, question: bytes, seconds: float) -> bytes | None:
        """None when no answer came in time. Raises EngineError when the process does not start."""
        process = self._running()
        try:
            _write(process.stdin, question)
            answer = _read(process.stdout) if self._answers(process, seconds) else None
        except OSError:
            answer = None
        if answer is None or self._gave_way:
            self.close()
            self.start()
        return answer

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        try:
            if self._process is None or self._process.poll() is not None:
                self.close()
                self.start()
            assert self._process is not None
            if not self._up:
                self._up = _is_readable(self._process, _START_SECONDS)
                self._up = self._up and _read(self._process.stdout) is not None
        except OSError:
            self._up = False
        if not self._up or self._process is None:
            self.close()
            raise EngineError("A process that the request needs does not start.")
        return self._process

    def _answers(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        if _is_readable(process, min(SOON, seconds)):
            return True
        os.setpriority(os.PRIO_PROCESS, process.pid, _GIVE_WAY)
        self._gave_way = True
        return _is_readable(process, seconds - SOON)


def answer_questions(answer: Callable[[bytes], bytes], *, memory: int, seconds: float) -> None:
    """The other end, until nobody asks any more.

    `memory` bytes at most, and about twice `seconds` of a processor for a question: the process
    ends itself also when nobody is left to end it.
    """
    leave_no_dump()
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the whole group: others decide
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    _write(sys.stdout.buffer, b"")
    while (question := _read(sys.stdin.buffer)) is not None:
        _bound_processor_time(seconds)
        _write(sys.stdout.buffer, answer(question))


def _is_readable(process: subprocess.Popen[bytes], seconds: float) -> bool:
    assert process.stdout is not None
    poll = select.poll()  # select() knows no file beyond the 1024th
    poll.register(process.stdout, select.POLLIN)
    return bool(poll.poll(max(0, seconds) * 1000))


def _write(file: IO[bytes] | None, content: bytes) -> None:
    assert file is not None
    file.write(len(content).to_bytes(_LENGTH, "big") + content)
    file.flush()


def _read(file: IO[bytes] | None) -> bytes | None:
    assert file is not None
    header = file.read(_LENGTH)
    if len(header) < _LENGTH:
        return None
    size = int.from_bytes(header, "big")
    content = file.read(size)
    return content if len(content) == size else None


def _bound_processor_time(seconds: float) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + 2 * seconds) + 1, resource.RLIM_INFINITY))
