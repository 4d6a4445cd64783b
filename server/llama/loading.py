"""From a file path to a llama.cpp model and context, with the reasons when it does not work."""

from __future__ import annotations

import hashlib
from ctypes import create_string_buffer
from importlib import metadata
from pathlib import Path
from typing import Any

import llama_cpp

from server.core.config import KvType, RunnerConfig
from server.core.errors import ModelFileError, OutOfMemory
from server.core.plan import MemoryTraits, Row

from . import log
from .batch import Batch
from .shape import CELL_BLOCK, ELEMENT_BYTES, Shape, StateSize, choose_shape

_KV_TYPES: dict[KvType, int] = {
    "f16": llama_cpp.GGML_TYPE_F16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
}
_PROBE_BATCH = 32
_EDGE, _PIECE, _PIECES = 1 << 20, 64 << 10, 64
_SAMPLING_KEYS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repeat_penalty",
}


def load_model(config: RunnerConfig) -> Any:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = config.gpu_layers if llama_cpp.llama_supports_gpu_offload() else 0
    model = llama_cpp.llama_model_load_from_file(config.path.encode(), params)
    if not model:
        raise ModelFileError(
            f"{config.path}: llama.cpp cannot load it ({log.recent() or 'no reason given'});"
            " fetch the file again, or pick a model of an architecture this version knows"
        )
    return model


def check_generates(model: Any, path: str) -> None:
    """Raises ModelFileError for encoders, which have nothing to say, and what reads both ways."""
    architecture = meta(model, "general.architecture") or ""
    if (
        llama_cpp.llama_model_has_encoder(model)
        or not llama_cpp.llama_model_has_decoder(model)
        or llama_cpp.llama_model_is_diffusion(model)
        or meta(model, f"{architecture}.attention.causal") == "false"
    ):
        raise ModelFileError(f"{path}: not a text-generation model; pick one that generates text")


def pick_shape(model: Any, config: RunnerConfig, state: StateSize, free_bytes: int) -> Shape:
    """`free_bytes` is what was free before the weights were loaded."""
    on_cpu = not llama_cpp.llama_supports_gpu_offload()
    weights = int(llama_cpp.llama_model_size(model)) if on_cpu else 0
    return choose_shape(
        context_train=int(llama_cpp.llama_model_n_ctx_train(model)),
        state=state,
        free_bytes=max(0, free_bytes - weights),
        context=config.context,
        slots=config.slots,
    )


def new_context(
    model: Any, shape: Shape, config: RunnerConfig, *, threads: int, batch_tokens: int
) -> Any:
    """A context of one KV stream a slot. Of `config` only what Tuning names is read here."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = shape.slots * shape.cells
    params.n_seq_max = shape.slots
    params.n_batch = batch_tokens
    params.n_ubatch = min(batch_tokens, config.micro_batch)
    params.type_k = params.type_v = _KV_TYPES[config.kv_type]
    if not config.flash_attention:
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.n_threads = threads
    params.n_threads_batch = threads
    params.kv_unified = False
    params.swa_full = True
    params.no_perf = True
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise OutOfMemory(
            f"llama.cpp could not make a context of {shape.slots} slots × {shape.context} tokens"
            f" ({log.recent() or 'no reason given'}); pass a smaller --ctx or fewer --slots"
        )
    return context


def state_size(model: Any, config: RunnerConfig) -> StateSize:
    """Measured with two tokens in a small context: layers differ, and some keep no token at all.

    Raises ModelFileError when the model computes nothing.
    """
    shape = Shape(slots=1, context=CELL_BLOCK)
    context = new_context(model, shape, config, threads=1, batch_tokens=_PROBE_BATCH)
    try:
        one, two = [_size_after(context, position) for position in (0, 1)]
    finally:
        llama_cpp.llama_free(context)
    return StateSize(fixed=max(0, 2 * one - two), per_token=max(0, two - one))


def _size_after(context: Any, position: int) -> int:
    batch = Batch(1)
    filled, _ = batch.fill((Row(slot=0, position=position, tokens=[0], sample=True),))
    if llama_cpp.llama_decode(context, filled) != 0:
        raise ModelFileError(
            f"the model computes no token ({log.recent() or 'no reason given'}); pick another one"
        )
    return int(llama_cpp.llama_state_seq_get_size(context, 0))


def is_recurrent(model: Any) -> bool:
    """Wholly or in part: its memory can neither be cut nor be copied in part."""
    return bool(llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model))


def memory_traits(model: Any, size: StateSize, spare_bytes: int, key: str) -> MemoryTraits:
    recurrent = is_recurrent(model)
    return MemoryTraits(
        trim=not recurrent,
        copy=not recurrent,
        token_bytes=size.per_token,
        state_bytes=size.fixed,
        spare_bytes=spare_bytes,
        key=key,
    )


def kv_bytes_per_token(model: Any, kv_type: KvType = "f16") -> int:
    """Bytes of K and V one token takes, were all layers like the first one."""
    architecture = meta(model, "general.architecture") or ""
    embedding = int(llama_cpp.llama_model_n_embd(model))
    heads = max(1, int(llama_cpp.llama_model_n_head(model)))
    head = embedding // heads
    key = int(meta(model, f"{architecture}.attention.key_length") or head)
    value = int(meta(model, f"{architecture}.attention.value_length") or head)
    layers = int(llama_cpp.llama_model_n_layer(model))
    kv_heads = layers * int(llama_cpp.llama_model_n_head_kv(model))
    return max(1, int(kv_heads * (key + value) * ELEMENT_BYTES[kv_type]))


def meta(model: Any, key: str) -> str | None:
    """A metadata value as llama.cpp prints it; None when the file has no such key."""
    room = 256
    while True:
        buffer = create_string_buffer(room)
        length = llama_cpp.llama_model_meta_val_str(model, key.encode(), buffer, room)
        if length < 0:
            return None
        if length < room:
            return buffer.value.decode("utf-8", "replace")
        room = length + 1


def quantisation(model: Any) -> str:
    name = llama_cpp.llama_ftype_name(llama_cpp.llama_model_ftype(model))
    return name.decode().split(" - ")[0] if name else "unknown"


def recommended_sampling(model: Any) -> dict[str, float]:
    """`general.sampling.*` of the file: what its authors recommend."""
    found = {}
    for key, name in _SAMPLING_KEYS.items():
        value = meta(model, f"general.sampling.{key}")
        if value is not None:
            found[name] = float(value)
    return found


def state_key(config: RunnerConfig, version: str) -> str:
    """Of states that mean the same: of this file, this build, and this form of K and V."""
    build = (version, metadata.version("llama-cpp-python"))
    form = (config.kv_type, config.flash_attention)
    return hashlib.sha256(repr((_content(config.path), build, form)).encode()).hexdigest()


def _content(path: str) -> str:
    """A digest of the file's size, its head and tail, and pieces all over it: all of some GB would
    take longer to read than a prompt."""
    size = Path(path).stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(_EDGE))
        for piece in range(_PIECES):
            file.seek(size * piece // _PIECES)
            digest.update(file.read(_PIECE))
        file.seek(max(0, size - _EDGE))
        digest.update(file.read())
    return digest.hexdigest()


def numerics(config: RunnerConfig) -> tuple[str, ...]:
    """Of the configuration, what can change a model's numbers in the last bits."""
    return (str(config.micro_batch), str(config.flash_attention), config.kv_type)


def fingerprint(path: str, *engine: str) -> str:
    """Changes with the file's size, head or tail, and with the engine's build and settings."""
    digest = hashlib.sha256(repr(engine).encode())
    size = Path(path).stat().st_size
    digest.update(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read())
    return f"fp_{digest.hexdigest()[:12]}"
