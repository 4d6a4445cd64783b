"""The runner that computes with llama.cpp: one model, one context, one thread."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import llama_cpp
import numpy as np

from server.core.config import RunnerConfig, SchedulerConfig
from server.core.errors import EngineError, ModelFileError
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
from server.core.types import GenerateRequest, ModelInfo, SamplingParams, TextPiece

from . import backend, loading, log, machine, sampler
from .batch import Batch
from .candidates import Candidates
from .grammar import Grammar, GrammarBroken, Grammars
from .sampler import Logits, Sampler
from .scores import score
from .states import States
from .step import Step
from .vocabulary import Vocabulary

BATCH_TOKENS = SchedulerConfig().max_step_tokens


SCORED_TOKENS = 64
"""Scored prompts are computed in pieces of so many: llama.cpp keeps all their logits."""


_STORED_SHARE = 0.5
"""Of the memory that is free once the model is loaded, what kept states may take at most."""


class EngineBroken(RuntimeError):
    """llama.cpp reported a failure after which the context cannot be trusted."""


class Asked(NamedTuple):
    """What the runner must know of the sequence in a slot. `prompt` only where it is scored."""

    sampler: Sampler
    logprobs: int | None
    prompt: list[int]


class LlamaRunner:
    """See `ModelRunner`. A slot is a KV stream: sequence id = slot."""

    info: ModelInfo
    memory: MemoryTraits

    def load(self, config: RunnerConfig) -> None:
        started = time.monotonic()
        log.install()
        backend.init()
        free = machine.allowed_memory(config.memory_bytes)
        model = loading.load_model(config)
        loading.check_generates(model, config.path)
        size = loading.state_size(model, config)
        shape = loading.pick_shape(model, config, size, free)
        threads = config.threads or machine.usable_threads()
        self._context = loading.new_context(
            model, shape, config, threads=threads, batch_tokens=BATCH_TOKENS
        )
        self._kv = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = Vocabulary(model)
        self._logits_type = ctypes.c_float * self._vocabulary.size
        self._batch = Batch(BATCH_TOKENS)
        self._grammars = Grammars(self._vocabulary.words())
        self._grammars.warm()
        self._candidates = Candidates(self._vocabulary.size)
        self._asked: dict[int, Asked] = {}
        self._blind = False
        """Whether the last step that chose had no numbers to choose from."""
        self._window = min(shape.context, sampler.MAX_PENALTY_WINDOW)
        self._warm_up(config.path)
        taken = machine.resident_memory()
        spare = int(machine.allowed_memory(config.memory_bytes, taken) * _STORED_SHARE)
        version = llama_cpp.llama_version().decode()
        key = loading.state_key(config, version)
        self.memory = loading.memory_traits(model, size, spare, key)
        self._states = States(self._context, self._kv, self.memory)
        template = llama_cpp.llama_model_chat_template(model, None)
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
            kv_bytes=size.of(shape),
            load_seconds=time.monotonic() - started,
            resident_bytes=machine.resident_memory(),
            chat_template=template.decode("utf-8", "replace") if template else None,
            bos_token=self._vocabulary.spelling(self._vocabulary.bos),
            eos_token=self._vocabulary.spelling(self._vocabulary.eos),
            special_tokens=self._vocabulary.special_tokens,
            text_tokens=self._vocabulary.text_tokens,
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

    def compile(self, grammar: str) -> Grammar:
        return self._grammars.compile(grammar)

    def compiled(self, grammar: str) -> Grammar | None:
        return self._grammars.find(grammar)

    def open(
        self, slot: int, request: GenerateRequest, prompt: list[int], grammar: Grammar | None
    ) -> None:
        self.close(slot)
        ends, stops = self._vocabulary.ends, frozenset(request.stop_tokens)
        made = Sampler(
            request,
            prompt,
            window=self._window,
            ends=ends | stops,
            candidates=self._candidates,
            constraint=grammar.begin(ends, stops) if grammar else None,
        )
        self._asked[slot] = Asked(made, request.logprobs, prompt * request.prompt_logprobs)

    def close(self, slot: int) -> None:
        found = self._asked.pop(slot, None)
        if found is not None:
            found.sampler.close()

    def state_of(self, slot: int) -> memoryview | None:
        return self._states.of(slot)

    def kept(self, key: int) -> memoryview | None:
        return self._states.kept(key)

    def keep(self, key: int, state: memoryview) -> None:
        self._states.keep(key, state)

    def forget(self, key: int) -> None:
        self._states.forget(key)

    def run(self, plan: BatchPlan) -> StepResult:
        started = time.monotonic()
        step = Step()
        for op in plan.memory:
            self._apply(op, step)
        rows = [row for row in plan.rows if row.slot not in step.lost]
        together = tuple(row for row in rows if not row.score)
        if together:
            self._run_rows(together, step)
        for row in rows:
            if row.score:
                self._run_scored(row, step)
            if row.filler:
                llama_cpp.llama_memory_seq_rm(self._kv, row.slot, row.position, -1)
        self._check_sight(step)
        return step.result(time.monotonic() - started)

    def _check_sight(self, step: Step) -> None:
        """One sequence without numbers is at fault itself; all of several are not, nor one after
        another: their memory is, or the model's. Raises EngineBroken."""
        if step.blind > 1 or (step.blind and self._blind):
            raise EngineBroken("the model's numbers are not finite for any request")
        if step.blind or step.sampled:
            self._blind = step.blind > 0

    def _apply(self, op: MemoryOp, step: Step) -> None:
        match op:
            case Save(slot, key):
                if not self._states.save(slot, key):
                    step.unsaved.append(key)
            case Forget(key):
                self._states.forget(key)
            case Trim(slot, length):
                if not llama_cpp.llama_memory_seq_rm(self._kv, slot, length or -1, -1):
                    step.lost.append(slot)
            case Copy(source, target, length):
                if not self._states.copy(source, target, length):
                    step.lost.append(target)
            case Restore(slot, key, length):
                if not self._states.restore(slot, key, length):
                    step.lost.append(slot)

    def _run_rows(self, rows: tuple[Row, ...], step: Step) -> None:
        status, outputs = self._decode(rows)
        if status < -1 or status == 2:
            raise EngineBroken(f"llama_decode returned {status}: {log.recent()}")
        if status != 0:
            self._run_apart(rows, step, status)
            return
        for row, output in zip(rows, outputs, strict=True):
            if row.score:
                self._score_prompt(row, output, step)
            if row.sample and row.slot not in step.failed:
                self._sample(row, output, step)

    def _decode(self, rows: tuple[Row, ...]) -> tuple[int, list[int]]:
        """llama.cpp's status, and where the logits of each row's last token are."""
        batch, outputs = self._batch.fill(rows)
        return llama_cpp.llama_decode(self._context, batch), outputs

    def _run_apart(self, rows: tuple[Row, ...], step: Step, status: int) -> None:
        """A refused batch is retried row by row, so that only the row at fault is lost."""
        if len(rows) == 1:
            step.failed[rows[0].slot] = EngineError(
                f"the engine could not compute this request (code {status})"
            )
            return
        for row in rows:
            self._run_rows((row,), step)

    def _run_scored(self, row: Row, step: Step) -> None:
        for start in range(0, len(row.tokens), SCORED_TOKENS):
            tokens = row.tokens[start : start + SCORED_TOKENS]
            last = start + len(tokens) == len(row.tokens)
            piece = Row(row.slot, row.position + start, tokens, row.sample and last, score=True)
            self._run_rows((piece,), step)
            if row.slot in step.failed:
                return

    def _score_prompt(self, row: Row, last: int, step: Step) -> None:
        """Each token of the prompt after one of the row's."""
        asked = self._asked[row.slot]
        following = asked.prompt[row.position + 1 : row.position + 1 + len(row.tokens)]
        first = last + 1 - len(row.tokens)
        found = step.prompt_scores.setdefault(row.slot, [])
        for output, token in enumerate(following, first):
            logits = self._logits(output)
            if logits is None:
                step.not_finite(row.slot)
                return
            found.append(score(logits, token, asked.logprobs or 0))

    def _sample(self, row: Row, last: int, step: Step) -> None:
        """The token after the row's own ones, and after each guess as long as it is right."""
        try:
            sampled = self._sample_each(row, last, step)
        except GrammarBroken as broken:
            step.failed[row.slot] = broken.refusal
            return
        if len(sampled) <= row.draft:
            end = row.position + len(row.tokens) - row.draft + len(sampled) - 1
            llama_cpp.llama_memory_seq_rm(self._kv, row.slot, end, -1)
        if sampled:
            step.sampled[row.slot] = sampled
        if draws := self._asked[row.slot].sampler.draws:
            step.draws[row.slot] = draws

    def _sample_each(self, row: Row, last: int, step: Step) -> list[int]:
        guesses = row.tokens[len(row.tokens) - row.draft :]
        asked = self._asked[row.slot]
        sampled: list[int] = []
        for output in range(last - row.draft, last + 1):
            logits = self._logits(output)
            if logits is None:
                step.not_finite(row.slot)
                return []
            token = asked.sampler.sample(self._context, output, logits)
            sampled.append(token)
            if asked.logprobs is not None:
                scored = score(logits, token, asked.logprobs)
                step.scores.setdefault(row.slot, []).append(scored)
            if asked.sampler.ended_by(token):
                step.ended.add(row.slot)
                return sampled
            if asked.sampler.complete:
                step.complete.add(row.slot)
                return sampled
            if len(sampled) > row.draft or token != guesses[len(sampled) - 1]:
                break
        if asked.logprobs is None and len(sampled) > row.draft:
            sampled += asked.sampler.forced()
            if asked.sampler.complete:
                step.complete.add(row.slot)
        return sampled

    def _logits(self, output: int) -> Logits | None:
        """None when they are not finite."""
        logits = self._raw_logits(output)
        # NaN compares as the maximum, and llama.cpp samples from it without a word.
        return logits if math.isfinite(logits.max()) else None

    def _raw_logits(self, output: int) -> Logits:
        pointer = llama_cpp.llama_get_logits_ith(self._context, output)
        room: Any = self._logits_type.from_address(ctypes.addressof(pointer.contents))
        logits: Logits = np.frombuffer(room, np.float32)
        return logits

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
