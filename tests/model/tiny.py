"""Tiny random models of odd architectures, on real vocabularies, written with the `gguf` package.

They say nothing sensible, but the same nonsense every time: enough to compare a run that reuses
what it can with one that reuses nothing.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH, LAYERS, CONTEXT = 64, 2, 1024
HEADS, FEED_FORWARD = 4, 96

Tensors = dict[str, tuple[int, ...]]


def write(
    path: Path,
    architecture: str,
    vocabulary: Path,
    pooling: gguf.PoolingType | None = None,
    rank_prompt: str = "",
) -> Path:
    """A model of `architecture` ("llama", "mamba", "lfm2" or "bert") at `path`.

    With `pooling` it makes vectors, or ranks, and reads pairs as in `rank_prompt`.
    """
    writer = gguf.GGUFWriter(path, architecture)
    tokens = _copy_vocabulary(writer, vocabulary)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_layer_norm_rms_eps(1e-5)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    if rank_prompt:
        writer.add_chat_template([{"name": "rerank", "template": rank_prompt}])
    shapes = _ARCHITECTURES[architecture](writer)
    random = np.random.default_rng(5)
    for name, shape in {"token_embd.weight": (tokens, WIDTH), **shapes}.items():
        writer.add_tensor(name, _values(random, name, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _copy_vocabulary(writer: gguf.GGUFWriter, vocabulary: Path) -> int:
    reader = gguf.GGUFReader(vocabulary)
    count = 0
    for name, value in reader.fields.items():
        if name.startswith("tokenizer."):
            kind, *rest = value.types
            writer.add_key_value(name, value.contents(), kind, sub_type=rest[-1] if rest else None)
            if name == "tokenizer.ggml.tokens":
                count = len(value.contents())
    return count


def _values(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("norm.bias"):
        return np.zeros(shape, np.float32)
    if "norm" in name:
        return np.ones(shape, np.float32)
    if name.endswith("ssm_a"):
        return -np.exp(random.uniform(-2, 1, shape)).astype(np.float32)
    return random.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)


def _llama(writer: gguf.GGUFWriter) -> Tensors:
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    blocks = [_attention(i) | _dense(i) for i in range(LAYERS)]
    return {"output_norm.weight": (WIDTH,), **_merged(blocks)}


def _mamba(writer: gguf.GGUFWriter) -> Tensors:
    inner, state, kernel, rank = 2 * WIDTH, 16, 4, 4
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_head_count(0)
    writer.add_feed_forward_length(0)
    blocks = [
        {
            f"blk.{i}.attn_norm.weight": (WIDTH,),
            f"blk.{i}.ssm_in.weight": (2 * inner, WIDTH),
            f"blk.{i}.ssm_conv1d.weight": (inner, kernel),
            f"blk.{i}.ssm_conv1d.bias": (inner,),
            f"blk.{i}.ssm_x.weight": (rank + 2 * state, inner),
            f"blk.{i}.ssm_dt.weight": (inner, rank),
            f"blk.{i}.ssm_dt.bias": (inner,),
            f"blk.{i}.ssm_a": (inner, state),
            f"blk.{i}.ssm_d": (inner,),
            f"blk.{i}.ssm_out.weight": (WIDTH, inner),
        }
        for i in range(LAYERS)
    ]
    return {"output_norm.weight": (WIDTH,), **_merged(blocks)}


def _lfm2(writer: gguf.GGUFWriter) -> Tensors:
    """One convolution layer, one of attention."""
    kernel = 3
    writer.add_head_count(HEADS)
    writer.add_head_count_kv([0, HEADS])
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_shortconv_l_cache(kernel)
    convolution = {
        "blk.0.attn_norm.weight": (WIDTH,),
        "blk.0.shortconv.conv.weight": (WIDTH, kernel),
        "blk.0.shortconv.in_proj.weight": (3 * WIDTH, WIDTH),
        "blk.0.shortconv.out_proj.weight": (WIDTH, WIDTH),
    }
    normed = {f"blk.1.attn_{part}_norm.weight": (WIDTH // HEADS,) for part in "qk"}
    blocks = [convolution, _dense(0), _attention(1), normed, _dense(1)]
    return {"token_embd_norm.weight": (WIDTH,), **_merged(blocks)}


def _bert(writer: gguf.GGUFWriter) -> Tensors:
    """An encoder with a classifier of one number, which only a reranker uses."""
    writer.add_head_count(HEADS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    writer.add_token_type_count(2)
    writer.add_classifier_output_labels(["relevant"])
    blocks = [
        {
            f"blk.{i}.attn_q.weight": (WIDTH, WIDTH),
            f"blk.{i}.attn_k.weight": (WIDTH, WIDTH),
            f"blk.{i}.attn_v.weight": (WIDTH, WIDTH),
            f"blk.{i}.attn_output.weight": (WIDTH, WIDTH),
            f"blk.{i}.ffn_up.weight": (FEED_FORWARD, WIDTH),
            f"blk.{i}.ffn_down.weight": (WIDTH, FEED_FORWARD),
            **_norm(f"blk.{i}.attn_output_norm"),
            **_norm(f"blk.{i}.layer_output_norm"),
        }
        for i in range(LAYERS)
    ]
    return {
        "position_embd.weight": (CONTEXT, WIDTH),
        "token_types.weight": (2, WIDTH),
        "cls.weight": (WIDTH, WIDTH),
        "cls.bias": (WIDTH,),
        "cls.output.weight": (1, WIDTH),
        "cls.output.bias": (1,),
        **_norm("token_embd_norm"),
        **_merged(blocks),
    }


def _norm(name: str) -> Tensors:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def _attention(layer: int) -> Tensors:
    square = {f"blk.{layer}.attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v")}
    return {
        f"blk.{layer}.attn_norm.weight": (WIDTH,),
        f"blk.{layer}.attn_output.weight": (WIDTH, WIDTH),
        **square,
    }


def _dense(layer: int) -> Tensors:
    return {
        f"blk.{layer}.ffn_norm.weight": (WIDTH,),
        f"blk.{layer}.ffn_gate.weight": (FEED_FORWARD, WIDTH),
        f"blk.{layer}.ffn_up.weight": (FEED_FORWARD, WIDTH),
        f"blk.{layer}.ffn_down.weight": (WIDTH, FEED_FORWARD),
    }


def _merged(blocks: list[Tensors]) -> Tensors:
    return {name: shape for block in blocks for name, shape in block.items()}


_ARCHITECTURES = {"llama": _llama, "mamba": _mamba, "lfm2": _lfm2, "bert": _bert}
