"""What an embedding model is, from its file, and a context that computes its vectors."""

from __future__ import annotations

import re
from typing import Any

import llama_cpp
from msgspec import Struct

from server.core.config import RunnerConfig
from server.core.errors import ModelFileError, OutOfMemory
from server.core.types import ModelKind

from . import loading, log
from .shape import COMPUTE_RESERVE

MOST_INPUTS = 64
BATCH_TOKENS = 512
"""A batch holds so many tokens, or one input that is longer."""

_CONTEXTS = (8192, 4096, 2048, 1024, 512)
_SHARE = 0.5
_MEAN, _LAST, _RANK = (
    llama_cpp.LLAMA_POOLING_TYPE_MEAN,
    llama_cpp.LLAMA_POOLING_TYPE_LAST,
    llama_cpp.LLAMA_POOLING_TYPE_RANK,
)
_MATRYOSHKA = re.compile(
    r"nomic-embed-text-v(1\.5|[2-9])|embeddinggemma|qwen3.*embedding|mxbai-embed"
    r"|arctic-embed.*v(1\.5|2)|jina-embeddings-v[3-9]|granite-embedding.*r2|text-embedding-3",
)


class Pooling(Struct, frozen=True):
    """`type` is llama.cpp's. With `in_pieces` an input may be computed over several steps.

    `context` is the longest input in tokens, `batch` the most tokens of a step.
    """

    kind: ModelKind
    type: int
    in_pieces: bool
    context: int

    @property
    def batch(self) -> int:
        return BATCH_TOKENS if self.in_pieces else max(BATCH_TOKENS, self.context)


def pooling_of(model: Any, config: RunnerConfig, free_bytes: int) -> Pooling:
    """Raises ModelFileError for a model that makes no vectors, OutOfMemory for a large one.

    `free_bytes` is what was free before the weights were loaded. `config.context` is a limit here:
    one setting serves all models, and those of vectors are short.
    """
    if llama_cpp.llama_model_is_diffusion(model) or (
        llama_cpp.llama_model_has_encoder(model) and llama_cpp.llama_model_has_decoder(model)
    ):
        raise ModelFileError(f"{config.path}: not a model of vectors; pick an embedding model")
    pooled = int(_of_architecture(model, "pooling_type") or 0) or _MEAN
    causal = _of_architecture(model, "attention.causal") != "false"
    in_pieces = causal and pooled in (_LAST, _RANK)
    kind: ModelKind = "rerank" if pooled == _RANK else "embed"
    return Pooling(kind, pooled, in_pieces, _context(model, config, free_bytes, in_pieces))


def new_context(model: Any, pooling: Pooling, config: RunnerConfig, threads: int) -> Any:
    """All inputs of a batch share its cells, if the model keeps any. Raises OutOfMemory."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = max(pooling.context, pooling.batch)
    params.n_seq_max = MOST_INPUTS
    params.n_batch = params.n_ubatch = pooling.batch
    params.pooling_type = pooling.type
    params.embeddings = True
    params.kv_unified = True
    params.swa_full = True
    params.no_perf = True
    params.n_threads = params.n_threads_batch = threads
    if not config.flash_attention:
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise OutOfMemory(
            f"llama.cpp could not make a context of {pooling.context} tokens"
            f" ({log.recent() or 'no reason given'}); pass a smaller --ctx"
        )
    return context


def is_matryoshka(model: Any) -> bool:
    """By the model's own name: no file says how it was trained."""
    names = (loading.meta(model, f"general.{key}") or "" for key in ("name", "basename"))
    architecture = loading.meta(model, "general.architecture") or ""
    named = "-".join(" ".join(names).lower().split())
    return architecture == "gemma-embedding" or bool(_MATRYOSHKA.search(named))


def gives_probabilities(model: Any) -> bool:
    """Whether a reranker's numbers are shares of 1 already."""
    return (loading.meta(model, "general.architecture") or "").startswith("qwen3")


def _context(model: Any, config: RunnerConfig, free_bytes: int, in_pieces: bool) -> int:
    """The longest input that the model and half of the memory allow, or the one asked for."""
    trained = int(llama_cpp.llama_model_n_ctx_train(model))
    if config.context is not None:
        return min(config.context, trained)
    usable = free_bytes - int(llama_cpp.llama_model_size(model)) - COMPUTE_RESERVE
    for context in sorted({min(context, trained) for context in _CONTEXTS}, reverse=True):
        if _bytes(model, context, in_pieces) <= max(0, usable) * _SHARE:
            return context
    return min(_CONTEXTS[-1], trained)


def _bytes(model: Any, context: int, in_pieces: bool) -> int:
    """What a context takes at most: outputs, the mask, and the layers' own numbers.

    llama.cpp keeps room for the logits of every token, also where a model has none.
    """
    vocabulary = int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model)))
    width = int(llama_cpp.llama_model_n_embd(model))
    step = BATCH_TOKENS if in_pieces else context
    cells = loading.kv_bytes_per_token(model) * context
    return step * (vocabulary + 32 * width) * 4 + 8 * step * context + cells


def _of_architecture(model: Any, key: str) -> str | None:
    architecture = loading.meta(model, "general.architecture") or ""
    return loading.meta(model, f"{architecture}.{key}")
