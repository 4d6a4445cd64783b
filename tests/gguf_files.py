"""Tiny GGUF files, written by hand, for tests that need a sound one or a broken one."""

from __future__ import annotations

import struct
from pathlib import Path

U32, F32, BOOL, STRING, ARRAY, U64 = 4, 6, 7, 8, 9, 10

PLAIN = {
    "general.architecture": (STRING, "llama"),
    "general.name": (STRING, "Tiny"),
    "general.file_type": (U32, 3),
    "llama.context_length": (U32, 2048),
    "tokenizer.ggml.tokens": (ARRAY, (STRING, ["<s>", "hello", "wörld"])),
    "tokenizer.ggml.scores": (ARRAY, (F32, [0.0, -1.0, -2.0])),
    "tokenizer.ggml.add_bos_token": (BOOL, True),
    "tokenizer.chat_template": (STRING, "{{ messages }}" * 200),
}
TENSORS = [("token_embd.weight", (64, 3), 0, 0), ("blk.0.attn_q.weight", (64, 64), 3, 768)]
"""Name, shape, ggml type, offset: F32 of 768 bytes, then Q4_1 of 2560 bytes."""
DATA_BYTES = 768 + 2560


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, content: object) -> bytes:
    if kind == STRING:
        return text(str(content))
    if kind == ARRAY:
        inner, items = content  # type: ignore[misc]
        head = struct.pack("<IQ", inner, len(items))
        return head + b"".join(value(inner, item) for item in items)
    return struct.pack({U32: "<I", F32: "<f", BOOL: "<?", U64: "<Q"}[kind], content)


def gguf(
    *,
    meta: dict[str, tuple[int, object]] | None = None,
    tensors: list[tuple[str, tuple[int, ...], int, int]] | None = None,
    magic: bytes = b"GGUF",
    version: int = 3,
    tensor_count: int | None = None,
    key_count: int | None = None,
    data_bytes: int = DATA_BYTES,
) -> bytes:
    """The bytes of a file. Each argument replaces one part, right or wrong."""
    meta = PLAIN if meta is None else meta
    tensors = TENSORS if tensors is None else tensors
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(meta) if key_count is None else key_count,
    )
    out = magic + struct.pack("<IQQ", version, *counts)
    for key, (kind, content) in meta.items():
        out += text(key) + struct.pack("<I", kind) + value(kind, content)
    for name, shape, kind, offset in tensors:
        out += text(name) + struct.pack("<I", len(shape))
        out += struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)
    return out + bytes(-len(out) % 32) + bytes(data_bytes)


def write_gguf(path: Path, content: bytes | None = None) -> Path:
    path.write_bytes(gguf() if content is None else content)
    return path
