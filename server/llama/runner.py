"""The runner that computes with llama.cpp: one model, one context, one thread."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import llama_cpp
import numpy as np

from server.core.config import RunnerConfig, SchedulerConfig
from server.core.errors import ModelFileError
from server.core.plan import (
    BatchPlan,
    Copy,
    Forget,
    MemoryOp,
    MemoryTraits,
    Restore,
    Row,
    Save,
    StepResult,
    Trim,
)
from server.core.types import ModelInfo, SamplingParams, TextPiece

from . import loading, log, machine, sampler
from .batch import Batch
from .sampler import Sampler
from .states import States
from .vocabulary import Vocabulary

BATCH_TOKENS = SchedulerConfig().max_step_tokens


class EngineBroken(RuntimeError):
    """llama.cpp reported a failure after which the context cannot be trusted."""


class LlamaRunner:
    """See `ModelRunner`. A slot is a KV stream: sequence id = slot."""

    info: ModelInfo
    memory: MemoryTraits

    def load(self, config: RunnerConfig) -> None:
        started = time.monotonic()
        log.install()
        llama_cpp.llama_backend_init()
        free = machine.available_memory()
        model = loading.load_model(config)
        loading.check_generates(model, config.path)
        shape = loading.pick_shape(model, config, free)
        threads = config.threads or machine.usable_threads()
        self._context = loading.new_context(
            model, shape, config, threads=threads, batch_tokens=BATCH_TOKENS
        )
        self._kv = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = Vocabulary(model)
        self._batch = Batch(BATCH_TOKENS)
        self._samplers: dict[int, Sampler] = {}
        self._window = min(shape.context, sampler.MAX_PENALTY_WINDOW)
        self.memory = loading.memory_traits(model, config.kv_type)
        self._states = States(self._context, self._kv, self.memory)
        self._warm_up(config.path)
        template = llama_cpp.llama_model_chat_template(model, None)
        version = llama_cpp.llama_version().decode()
        self.info = ModelInfo(
            architecture=loading.meta(model, "general.architecture") or "unknown",
            description=loading.meta(model, "general.name") or "",
            quantisation=loading.quantisation(model),
            parameters=int(llama_cpp.llama_model_n_params(model)),
            size=int(llama_cpp.llama_model_size(model)),
            vocabulary=self._vocabulary.size,
            context_train=int(llama_cpp.llama_model_n_ctx_train(model)),
            context=shape.context,
            slots=shape.slots,
            threads=threads,
            kv_bytes=shape.slots * shape.cells * loading.kv_bytes_per_token(model, config.kv_type),
            load_seconds=time.monotonic() - started,
            resident_bytes=machine.resident_memory(),
            chat_template=template.decode("utf-8", "replace") if template else None,
            bos_token=self._vocabulary.spelling(self._vocabulary.bos),
            eos_token=self._vocabulary.spelling(self._vocabulary.eos),
            special_tokens=self._vocabulary.special_tokens,
            fill_in_middle=self._vocabulary.fill_in_middle,
            sampling=loading.recommended_sampling(model),
            fingerprint=loading.fingerprint(
                config.path, version, str(threads), str(shape), *loading.numerics(config)
            ),
            gpu="offloaded" if llama_cpp.llama_supports_gpu_offload() else None,
        )

    def tokenize(self, prompt: Sequence[TextPiece], *, begin: bool = True) -> list[int]:
        return self._vocabulary.tokenize(prompt, begin=begin)

    def fewest_tokens(self, prompt: Sequence[TextPiece]) -> int:
        return self._vocabulary.fewest_tokens(prompt)

    def check(self, sampling: SamplingParams) -> None:
        sampler.check(sampling, self._vocabulary.size)

    def is_end(self, token: int) -> bool:
        return self._vocabulary.is_end(token)

    def piece(self, token: int) -> bytes:
        return self._vocabulary.piece(token)

    def spelling(self, token: int) -> bytes:
        return self._vocabulary.spelled(token)

    def open(self, slot: int, sampling: SamplingParams, prompt: list[int]) -> None:
        self.close(slot)
        self._samplers[slot] = Sampler(sampling, prompt, self._vocabulary.size, self._window)

    def close(self, slot: int) -> None:
        found = self._samplers.pop(slot, None)
        if found is not None:
            found.close()

    def run(self, plan: BatchPlan) -> StepResult:
        started = time.monotonic()
        failed: dict[int, str] = {}
        unsaved: list[int] = []
        lost: list[int] = []
        for op in plan.memory:
            self._apply(op, unsaved, lost)
        rows = tuple(row for row in plan.rows if row.slot not in lost)
        sampled = self._run_rows(rows, failed) if rows else {}
        return StepResult(sampled, time.monotonic() - started, failed, tuple(unsaved), tuple(lost))

    def _apply(self, op: MemoryOp, unsaved: list[int], lost: list[int]) -> None:
        match op:
            case Save(slot, key):
                if not self._states.save(slot, key):
                    unsaved.append(key)
            case Forget(key):
                self._states.forget(key)
            case Trim(slot, length):
                if not llama_cpp.llama_memory_seq_rm(self._kv, slot, length or -1, -1):
                    lost.append(slot)
            case Copy(source, target, length):
                if not self._states.copy(source, target, length):
                    lost.append(target)
            case Restore(slot, key, length):
                if not self._states.restore(slot, key, length):
                    lost.append(slot)

    def _run_rows(self, rows: tuple[Row, ...], failed: dict[int, str]) -> dict[int, list[int]]:
        batch, outputs = self._batch.fill(rows)
        status = llama_cpp.llama_decode(self._context, batch)
        if status < -1 or status == 2:
            raise EngineBroken(f"llama_decode returned {status}: {log.recent()}")
        if status != 0:
            return self._run_apart(rows, failed, status)
        return {
            row.slot: sampled
            for row, output in zip(rows, outputs, strict=True)
            if row.sample and (sampled := self._sample(row, output, failed))
        }

    def _run_apart(
        self, rows: tuple[Row, ...], failed: dict[int, str], status: int
    ) -> dict[int, list[int]]:
        """A refused batch is retried row by row, so that only the row at fault is lost."""
        if len(rows) == 1:
            failed[rows[0].slot] = f"the engine could not compute this request (code {status})"
            return {}
        sampled: dict[int, list[int]] = {}
        for row in rows:
            sampled |= self._run_rows((row,), failed)
        return sampled

    def _sample(self, row: Row, last: int, failed: dict[int, str]) -> list[int]:
        """The token after the row's own ones, and after each guess as long as it is right."""
        guesses = row.tokens[len(row.tokens) - row.draft :]
        sampled: list[int] = []
        for output in range(last - row.draft, last + 1):
            token = self._sample_one(row.slot, output)
            if token is None:
                failed[row.slot] = "the model's numbers are not finite (numeric_error)"
                return []
            sampled.append(token)
            if len(sampled) > row.draft or token != guesses[len(sampled) - 1]:
                break
        if len(sampled) <= row.draft:
            end = row.position + len(row.tokens) - row.draft + len(sampled) - 1
            llama_cpp.llama_memory_seq_rm(self._kv, row.slot, end, -1)
        return sampled

    def _sample_one(self, slot: int, output: int) -> int | None:
        pointer = llama_cpp.llama_get_logits_ith(self._context, output)
        logits = np.ctypeslib.as_array(pointer, shape=(self._vocabulary.size,))
        # NaN compares as the maximum, and llama.cpp samples from it without a word.
        if not math.isfinite(logits.max()):
            return None
        return self._samplers[slot].sample(self._context, output, logits)

    def _warm_up(self, path: str) -> None:
        """One token through the graph: the first request pays for no page faults, and a model
        that gives no logits is found out. Raises ModelFileError."""
        token = self._vocabulary.bos if self._vocabulary.bos >= 0 else 0
        batch, _ = self._batch.fill((Row(slot=0, position=0, tokens=[token], sample=True),))
        llama_cpp.llama_set_warmup(self._context, True)
        status = llama_cpp.llama_decode(self._context, batch)
        llama_cpp.llama_set_warmup(self._context, False)
        if status != 0 or not llama_cpp.llama_get_logits_ith(self._context, 0):
            raise ModelFileError(f"{path}: the model computes no next token; pick another one")
        llama_cpp.llama_memory_clear(self._kv, True)
