"""`python -m server.llama.grammar_check TOKENS`: compiles grammars in a process that may be killed.

Standard input: four bytes of length and the grammar; standard output: the same with what is wrong
with it, empty for nothing. llguidance bounds its work but for a few operations on regular
expressions, and a thread inside it cannot be stopped.
"""

from __future__ import annotations

import os
import resource
import select
import subprocess
import sys
from typing import IO

from llguidance import LLMatcher, LLTokenizer

from server.core.errors import EngineError

from .grammar_limits import LIMITS, first_line, invalid

SECONDS = 1.2
"""What one grammar may take; an ordinary one takes one to fifty milliseconds."""
SOON = 0.15
"""After so long the process gives way to those that compute tokens."""
_GIVE_WAY = 10
MEMORY = 2 << 30
_START_SECONDS = 20.0
_LENGTH = 4


class Checker:
    """The other end of the process. One thread at a time."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._process: subprocess.Popen[bytes] | None = None
        self._up = self._gave_way = False

    def start(self) -> None:
        """Does not wait until it is up."""
        self._up = self._gave_way = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(self._vocabulary)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def check(self, grammar: str) -> None:
        """Raises InvalidRequest for a grammar that is wrong or takes too long, or EngineError."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        if not self._up:
            self._up = self._ask('start: "a"', _START_SECONDS) == ""
        if not self._up:
            self.close()
            raise EngineError("The process that compiles grammars does not start.")
        answer = self._ask(grammar, SECONDS)
        if answer is None or self._gave_way:
            self.close()
            self.start()
        if answer is None:
            raise invalid("it takes too much time or memory to compile")
        if answer:
            raise invalid(answer)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, grammar: str, seconds: float) -> str | None:
        """None when no answer came in time; the process is of no use then."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return None
        try:
            _write(process.stdin, grammar)
            return _read(process.stdout) if self._answers(process, seconds) else None
        except OSError:
            return None

    def _answers(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        assert process.stdout is not None
        if not self._up:
            return bool(select.select([process.stdout], [], [], seconds)[0])
        if select.select([process.stdout], [], [], SOON)[0]:
            return True
        os.setpriority(os.PRIO_PROCESS, process.pid, _GIVE_WAY)
        self._gave_way = True
        return bool(select.select([process.stdout], [], [], seconds - SOON)[0])


class _Bytes:
    """The smallest vocabulary in which every text and every token id can be named."""

    eos_token_id = 256
    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids = (256,)

    def __init__(self, vocabulary: int) -> None:
        known = [bytes([byte]) for byte in range(256)] + [b"<end>"]
        self.tokens = known + [b""] * (vocabulary - len(known))

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


def _write(file: IO[bytes], text: str) -> None:
    raw = text.encode("utf-8", "replace")
    file.write(len(raw).to_bytes(_LENGTH, "big") + raw)
    file.flush()


def _read(file: IO[bytes]) -> str | None:
    header = file.read(_LENGTH)
    if len(header) < _LENGTH:
        return None
    return file.read(int.from_bytes(header, "big")).decode()


def _bound_processor_time() -> None:
    """A grammar that never ends ends this process, also when nobody is left to kill it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + 2 * SECONDS) + 1, resource.RLIM_INFINITY))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    tokenizer = LLTokenizer(_Bytes(int(sys.argv[1])))  # type: ignore[arg-type]
    while (grammar := _read(sys.stdin.buffer)) is not None:
        _bound_processor_time()
        matcher = LLMatcher(
            tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0, limits=LIMITS
        )
        _write(sys.stdout.buffer, first_line(matcher.get_error()) if matcher.is_error() else "")


if __name__ == "__main__":
    main()
