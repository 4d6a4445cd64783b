"""The runner that makes vectors, or scores, with llama.cpp: one model, one context, one thread."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence

import llama_cpp
import numpy as np

from server.core.config import RunnerConfig
from server.core.errors import ModelFileError
from server.core.plan import EmbedResult, Row
from server.core.types import ModelInfo, TextPiece

from . import backend, loading, log, machine, pooling
from .batch import Batch
from .runner import EngineBroken
from .vocabulary import Vocabulary

_PLACE = re.compile(r"(\{query\}|\{document\})")
_REASON = "the engine could not compute this input"


class LlamaEmbedder:
    """See `EmbedRunner`. Every input of a batch is a sequence of its own; nothing is kept."""

    info: ModelInfo

    def load(self, config: RunnerConfig) -> None:
        started = time.monotonic()
        log.install()
        backend.init()
        free = machine.allowed_memory(config.memory_bytes)
        model = loading.load_model(config)
        self._pooling = pooling.pooling_of(model, config, free)
        threads = config.threads or machine.usable_threads()
        self._context = pooling.new_context(model, self._pooling, config, threads)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = Vocabulary(model)
        self._batch = Batch(self._pooling.batch)
        template = llama_cpp.llama_model_chat_template(model, b"rerank")
        self._pair_template = template.decode("utf-8", "replace") if template else None
        self._squash = not pooling.gives_probabilities(model)
        rerank = self._pooling.kind == "rerank"
        self._width = int(
            (llama_cpp.llama_model_n_cls_out if rerank else llama_cpp.llama_model_n_embd_out)(model)
        )
        self._warm_up(config.path)
        version = llama_cpp.llama_version().decode()
        self.info = ModelInfo(
            architecture=loading.meta(model, "general.architecture") or "unknown",
            description=loading.meta(model, "general.name") or "",
            quantisation=loading.quantisation(model),
            parameters=int(llama_cpp.llama_model_n_params(model)),
            size=int(llama_cpp.llama_model_size(model)),
            vocabulary=self._vocabulary.size,
            context_train=int(llama_cpp.llama_model_n_ctx_train(model)),
            context=self._pooling.context,
            slots=pooling.MOST_INPUTS,
            threads=threads,
            kv_bytes=self._cells_bytes(model),
            load_seconds=time.monotonic() - started,
            resident_bytes=machine.resident_memory(),
            bos_token=self._vocabulary.spelling(self._vocabulary.bos),
            eos_token=self._vocabulary.spelling(self._vocabulary.eos),
            special_tokens=self._vocabulary.special_tokens,
            fingerprint=loading.fingerprint(config.path, version, str(threads)),
            gpu="offloaded" if llama_cpp.llama_supports_gpu_offload() else None,
            kind=self._pooling.kind,
            embedding_size=0 if rerank else self._width,
            matryoshka=not rerank and pooling.is_matryoshka(model),
        )

    def fewest_tokens(self, text: str) -> int:
        """Spaces between words are free in some vocabularies, so they do not count."""
        return sum(map(len, text.split())) // self._vocabulary.longest

    def tokenize(self, text: Sequence[TextPiece], *, begin: bool = True) -> list[int]:
        return self._vocabulary.framed(text) if begin else self._vocabulary.inside(text)

    def spelling(self, token: int) -> bytes:
        return self._vocabulary.spelled(token)

    def tokenize_pair(self, query: str, document: str) -> list[int]:
        """As the model's own prompt for it puts them, where it has one."""
        if self._pair_template is None:
            return self._vocabulary.framed_pair(query, document)
        texts = {"{query}": query, "{document}": document}
        pieces: list[TextPiece] = []
        for part in _PLACE.split(self._pair_template):
            pieces += self._vocabulary.pieces(texts[part]) if part in texts else [TextPiece(part)]
        return self._vocabulary.tokenize(_joined(pieces))

    def run(self, batch: Sequence[Sequence[int]]) -> EmbedResult:
        started = time.monotonic()
        failed: dict[int, str] = {}
        vectors = self._compute(dict(enumerate(batch)), failed)
        return EmbedResult(vectors, time.monotonic() - started, failed)

    def _compute(
        self, inputs: dict[int, Sequence[int]], failed: dict[int, str]
    ) -> dict[int, bytes]:
        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, False)
        vectors: dict[int, bytes] = {}
        for rows in _steps(list(inputs.values()), self._pooling.batch):
            status = llama_cpp.llama_decode(self._context, self._batch.fill(rows)[0])
            if status < -1 or status == 2:
                raise EngineBroken(f"llama_decode returned {status}: {log.recent()}")
            if status != 0:
                return self._compute_apart(inputs, failed, status)
            self._collect(rows, list(inputs), vectors, failed)
        return vectors

    def _compute_apart(
        self, inputs: dict[int, Sequence[int]], failed: dict[int, str], status: int
    ) -> dict[int, bytes]:
        """A refused batch is retried input by input, so that only the one at fault is lost."""
        if len(inputs) == 1:
            failed |= dict.fromkeys(inputs, f"{_REASON} (code {status})")
            return {}
        vectors: dict[int, bytes] = {}
        for index, tokens in inputs.items():
            vectors |= self._compute({index: tokens}, failed)
        return vectors

    def _collect(
        self,
        rows: tuple[Row, ...],
        indices: list[int],
        vectors: dict[int, bytes],
        failed: dict[int, str],
    ) -> None:
        """Of an input in pieces the last piece's vector stays."""
        for row in rows:
            index = indices[row.slot]
            pointer = llama_cpp.llama_get_embeddings_seq(self._context, row.slot)
            if not pointer:
                failed[index] = _REASON
                continue
            vector = np.ctypeslib.as_array(pointer, shape=(self._width,))
            if not np.isfinite(vector).all():
                failed[index] = "the model's numbers are not finite (numeric_error)"
            elif self._pooling.kind == "rerank":
                vectors[index] = self._score(float(vector[0]))
            else:
                vectors[index] = vector.astype("<f4").tobytes()

    def _score(self, number: float) -> bytes:
        if self._squash:
            number = 1 / (1 + math.exp(-number)) if number > -700 else 0.0
        return np.array([number], "<f4").tobytes()

    def _cells_bytes(self, model: object) -> int:
        if not self._memory:
            return 0
        cells = max(self._pooling.context, self._pooling.batch)
        return cells * loading.kv_bytes_per_token(model)

    def _warm_up(self, path: str) -> None:
        """A first vector: a model that gives none is found out. Raises ModelFileError."""
        pair = self._pooling.kind == "rerank"
        tokens = self.tokenize_pair("a", "b") if pair else self.tokenize((TextPiece("a"),))
        if not self._memory and self._pooling.in_pieces:
            raise ModelFileError(f"{path}: the file does not say how its vectors are pooled")
        result = self.run([tokens[: self._pooling.context]])
        if result.failed:
            raise ModelFileError(f"{path}: {result.failed[0]}; pick another model")


def _steps(inputs: Sequence[Sequence[int]], most: int) -> Iterator[tuple[Row, ...]]:
    """Input i in sequence i, every token an output; what exceeds a step goes on in the next."""
    rows: list[Row] = []
    room = most
    for slot, tokens in enumerate(inputs):
        start = 0
        while start < len(tokens):
            piece = list(tokens[start : start + room])
            rows.append(Row(slot, start, piece, sample=True, draft=len(piece) - 1))
            start, room = start + len(piece), room - len(piece)
            if room == 0:
                yield tuple(rows)
                rows, room = [], most
    if rows:
        yield tuple(rows)


def _joined(pieces: list[TextPiece]) -> list[TextPiece]:
    """Neighbours that are not plain become one: tokens may reach over their border."""
    joined: list[TextPiece] = []
    for piece in pieces:
        if joined and not joined[-1].plain and not piece.plain:
            joined[-1] = TextPiece(joined[-1].text + piece.text)
        else:
            joined.append(piece)
    return [piece for piece in joined if piece.text]
