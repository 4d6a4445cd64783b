"""One sequence, one token at a time, straight through llama.cpp's low-level API."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import llama_cpp
import numpy as np

from server.llama.runner import SCORED_TOKENS


def greedy(path: Path, prompt: str, most: int) -> str:
    """At most `most` tokens after `prompt`, in a context of its own: no batch, slots or reuse."""
    with _opened(path) as (context, vocab):
        return _continue(context, vocab, _tokens(vocab, prompt), most)


def log_probabilities(path: Path, tokens: list[int], prompt: int) -> np.ndarray:
    """A row a token: natural logarithms of what may follow it, in float64.

    The `prompt` first ones are read in pieces as a scored prompt is: more tokens at once go through
    other kernels, which alone moves scores by 0.05 to 0.09 in the mean. Then one at a time.
    """
    rows = []
    cuts = [*range(0, prompt, SCORED_TOKENS), *range(prompt, len(tokens)), len(tokens)]
    with _opened(path) as (context, vocab):
        size = llama_cpp.llama_vocab_n_tokens(vocab)
        for start, end in pairwise(cuts):
            _decode_all(context, tokens[start:end], start)
            for output in range(end - start):
                pointer = llama_cpp.llama_get_logits_ith(context, output)
                logits = np.ctypeslib.as_array(pointer, shape=(size,)).astype(np.float64)
                logits -= logits.max()
                rows.append(logits - np.log(np.exp(logits).sum()))
    return np.stack(rows)


def _decode_all(context: object, tokens: list[int], start: int) -> None:
    """Every token's logits."""
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, start + i, 1
        batch.seq_id[i][0], batch.logits[i] = 0, True
    assert llama_cpp.llama_decode(context, batch) == 0
    llama_cpp.llama_batch_free(batch)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[object, object]]:
    llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
    model = llama_cpp.llama_model_load_from_file(
        str(path).encode(), llama_cpp.llama_model_default_params()
    )
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 2048, 2, 2
    context = llama_cpp.llama_init_from_model(model, params)
    vocab = llama_cpp.llama_model_get_vocab(model)
    try:
        yield context, vocab
    finally:
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


@llama_cpp.llama_log_callback
def _quiet(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    pass


def _tokens(vocab: object, text: str) -> list[int]:
    raw = text.encode()
    buffer = (ctypes.c_int32 * (len(raw) + 1))()
    count = llama_cpp.llama_tokenize(vocab, raw, len(raw), buffer, len(buffer), False, True)
    return list(buffer[:count])


def _decode(context: object, tokens: list[int]) -> None:
    array = (ctypes.c_int32 * len(tokens))(*tokens)
    batch = llama_cpp.llama_batch_get_one(array, len(tokens))
    assert llama_cpp.llama_decode(context, batch) == 0


def _continue(context: object, vocab: object, tokens: list[int], most: int) -> str:
    size = llama_cpp.llama_vocab_n_tokens(vocab)
    text = b""
    for _ in range(most):
        _decode(context, tokens)
        logits = llama_cpp.llama_get_logits_ith(context, -1)[:size]
        token = max(range(size), key=logits.__getitem__)
        if llama_cpp.llama_vocab_is_eog(vocab, token):
            break
        piece = ctypes.create_string_buffer(64)
        length = llama_cpp.llama_token_to_piece(vocab, token, piece, 64, 0, False)
        text += piece.raw[:length]
        tokens = [token]
    return text.decode("utf-8", "replace")
