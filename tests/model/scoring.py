"""Log-probabilities of a token sequence, one decode of it, straight through llama.cpp."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

from .reference import _quiet, _tokens


def tokens(path: Path, text: str) -> list[int]:
    """With control tokens read as such, and nothing put in front."""
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = _model(path, params)
    try:
        return _tokens(llama_cpp.llama_model_get_vocab(model), text)
    finally:
        llama_cpp.llama_model_free(model)


def distributions(path: Path, sequence: list[int]) -> npt.NDArray[np.float64]:
    """Row i holds every token's logarithm of probability after token i."""
    model = _model(path, llama_cpp.llama_model_default_params())
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = 512
    params.n_threads = params.n_threads_batch = 2
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(len(sequence), 0, 1)
    try:
        for i, token in enumerate(sequence):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, True
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        batch.n_tokens = len(sequence)
        assert llama_cpp.llama_decode(context, batch) == 0
        size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        pointer = llama_cpp.llama_get_logits(context)
        logits = np.ctypeslib.as_array(pointer, shape=(len(sequence), size)).astype(np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)
        found: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return found
    finally:
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def _model(path: Path, params: object) -> object:
    llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
    return llama_cpp.llama_model_load_from_file(str(path).encode(), params)
