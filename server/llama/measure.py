"""`python -m server.llama.measure`: measures in a process of its own, which may crash alone.

One request a line on standard input, one answer a line on standard output, until input ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from statistics import median
from typing import Any

import llama_cpp
import msgspec
import numpy as np

from server.core.config import RunnerConfig
from server.core.errors import EngineError, IngleError, OutOfMemory
from server.core.plan import Row
from server.core.types import TextPiece

from . import backend, divergence, loading, log, machine
from .batch import Batch
from .encode import encode
from .probe import (
    Answer,
    Compare,
    Done,
    Encode,
    KeepReference,
    MeasureSpeed,
    Quality,
    Refused,
    Request,
    Speed,
)
from .reference_text import TEXT
from .runner import BATCH_TOKENS
from .shape import Shape
from .vocabulary import Vocabulary

MAX_REFERENCE_BYTES = 256 << 20
_SCORED_AT_ONCE = 64
_LEAST_STEPS = 4
_PR_SET_PDEATHSIG = 1


class Bench:
    """One model in one context; both stay until another is asked for."""

    def __init__(self) -> None:
        self._path: str | None = None
        self._model: Any = None
        self._context: Any = None
        self._made_for: tuple[RunnerConfig, Shape] | None = None
        self._batch = Batch(BATCH_TOKENS)

    def answer(self, request: Request) -> Answer:
        match request:
            case MeasureSpeed():
                return self._speed(request)
            case KeepReference():
                return self._keep(request)
            case Compare():
                return self._compare(request)
            case Encode():
                encode(request)
                return Done(llama_cpp.llama_version().decode())

    def _speed(self, request: MeasureSpeed) -> Speed:
        depth = request.prompt_tokens + 2 * (request.decode_steps + 1)
        self._open(request.config, Shape(request.streams, depth))
        tokens = list(islice(cycle(self._vocabulary.tokenize([TextPiece(TEXT)])), depth))
        self._decode([Row(0, 0, tokens[:16], True)])
        self._forget()
        prefill = self._time_prefill(tokens[: request.prompt_tokens])
        end = self._fill_all(request.streams, tokens[: request.prompt_tokens])
        return Speed(
            prefill=prefill,
            decode_one=self._time_decode(request, tokens, 1, request.prompt_tokens),
            decode_many=self._time_decode(request, tokens, request.streams, end),
            weights=int(llama_cpp.llama_model_size(self._model)),
            kv_token=loading.kv_bytes_per_token(self._model, request.config.kv_type),
        )

    def _time_prefill(self, prompt: list[int]) -> float:
        started = time.perf_counter()
        self._prefill(0, prompt)
        return len(prompt) / (time.perf_counter() - started)

    def _prefill(self, slot: int, prompt: list[int]) -> None:
        for start in range(0, len(prompt), BATCH_TOKENS):
            piece = prompt[start : start + BATCH_TOKENS]
            self._decode([Row(slot, start, piece, start + len(piece) == len(prompt))])

    def _fill_all(self, streams: int, prompt: list[int]) -> int:
        """Every other stream gets the prompt too, or its start where memory cannot be copied."""
        copies = not loading.is_recurrent(self._model)
        for slot in range(1, streams):
            if copies:
                llama_cpp.llama_memory_seq_cp(self._memory, 0, slot, -1, -1)
            else:
                self._prefill(slot, prompt[:16])
        return len(prompt) if copies else 16

    def _time_decode(
        self, request: MeasureSpeed, tokens: list[int], streams: int, start: int
    ) -> float:
        """The first step is not counted: it pays for a new graph and for copied memory."""
        steps: list[float] = []
        for number in range(request.decode_steps + 1):
            began = time.perf_counter()
            rows = [
                Row(slot, self._end(slot, start), [tokens[start + number]], True)
                for slot in range(streams)
            ]
            self._decode(rows)
            steps.append(time.perf_counter() - began)
            if number >= _LEAST_STEPS and sum(steps) > request.phase_seconds:
                break
        if streams == 1:
            llama_cpp.llama_memory_seq_rm(self._memory, 0, start, -1)
        return streams / median(steps[1:])

    def _end(self, slot: int, least: int) -> int:
        end = int(llama_cpp.llama_memory_seq_pos_max(self._memory, slot)) + 1
        return end or least

    def _keep(self, request: KeepReference) -> Done:
        tokens = self._text_tokens(request.config)
        rows = list(self._log_probabilities(tokens))
        with open(request.keep, "wb") as file:
            np.savez(file, tokens=np.array(tokens, np.int32), rows=np.concatenate(rows))
        return Done(llama_cpp.llama_version().decode())

    def _compare(self, request: Compare) -> Quality:
        with np.load(request.kept) as kept:
            tokens, reference = kept["tokens"].tolist(), kept["rows"]
        self._open(request.config, Shape(1, len(tokens)))
        if reference.shape[1] != self._vocabulary.size:
            raise EngineError("the vocabulary is not the original's")
        kls, same, start = [], [], 0
        for rows in self._log_probabilities(tokens):
            original = reference[start : start + len(rows)]
            kls.append(divergence.divergences(original, rows))
            same.append(divergence.agreements(original, rows))
            start += len(rows)
        mean = float(np.concatenate(kls).mean())
        if not np.isfinite(mean):
            raise EngineError("the model's numbers are not finite (numeric_error)")
        return Quality(mean, float(np.concatenate(same).mean()), len(tokens))

    def _text_tokens(self, config: RunnerConfig) -> list[int]:
        self._open(config, Shape(1, 512))
        most = max(16, MAX_REFERENCE_BYTES // (4 * self._vocabulary.size))
        return self._vocabulary.tokenize([TextPiece(TEXT)])[: min(512, most)]

    def _log_probabilities(self, tokens: list[int]) -> Iterator[divergence.Array]:
        """The model's view after each token, some tokens at a time."""
        self._forget()
        for start in range(0, len(tokens), _SCORED_AT_ONCE):
            piece = tokens[start : start + _SCORED_AT_ONCE]
            row = Row(0, start, piece, True, draft=len(piece) - 1)
            self._decode([row])
            pointer = llama_cpp.llama_get_logits(self._context)
            shape = (len(piece), self._vocabulary.size)
            logits = np.ctypeslib.as_array(pointer, shape=shape)
            if not np.isfinite(logits.max()):
                raise EngineError("the model's numbers are not finite (numeric_error)")
            yield divergence.log_softmax(logits)

    def _decode(self, rows: list[Row]) -> None:
        batch, _ = self._batch.fill(tuple(rows))
        status = llama_cpp.llama_decode(self._context, batch)
        if status:
            raise EngineError(f"llama_decode returned {status} ({log.recent()})")
        llama_cpp.llama_synchronize(self._context)

    def _forget(self) -> None:
        llama_cpp.llama_memory_clear(self._memory, False)

    def _open(self, config: RunnerConfig, shape: Shape) -> None:
        """The context is empty afterwards."""
        if self._path != config.path:
            self._close()
            self._model = loading.load_model(config)
            self._path = config.path
            self._vocabulary = Vocabulary(self._model)
        self._check_memory(config, shape)
        if self._made_for != (config, shape):
            self._close_context()
            threads = config.threads or machine.usable_threads()
            self._context = loading.new_context(
                self._model, shape, config, threads=threads, batch_tokens=BATCH_TOKENS
            )
            self._memory = llama_cpp.llama_get_memory(self._context)
            self._made_for = config, shape
        self._forget()

    def _check_memory(self, config: RunnerConfig, shape: Shape) -> None:
        need = shape.slots * shape.cells * loading.kv_bytes_per_token(self._model, config.kv_type)
        if need > machine.available_memory():
            raise OutOfMemory(f"the measurement needs {need / 1e9:.2f} GB more memory")

    def _close(self) -> None:
        self._close_context()
        if self._model is not None:
            llama_cpp.llama_model_free(self._model)
            self._model = self._path = None

    def _close_context(self) -> None:
        if self._context is not None:
            llama_cpp.llama_free(self._context)
            self._context = self._made_for = None


def main() -> None:
    _stay_subordinate()
    # What C code prints must not land between the answers.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    log.install()
    backend.init()
    bench = Bench()
    for line in sys.stdin.buffer:
        answers.write(msgspec.json.encode(_answer(bench.answer, line)) + b"\n")


def _answer(answer: Callable[[Request], Answer], line: bytes) -> Answer:
    try:
        return answer(msgspec.json.decode(line, type=Request))
    except IngleError as error:
        return Refused(error.message)
    except (msgspec.MsgspecError, OSError, MemoryError) as error:
        return Refused(f"{type(error).__name__}: {error}")


def _stay_subordinate() -> None:
    """Die with the parent and with Ctrl+C, and be what the kernel ends when memory runs out."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")


if __name__ == "__main__":
    main()
