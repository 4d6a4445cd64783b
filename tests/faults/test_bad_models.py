"""Forty model files that are none, given to the real command: one line each, and nothing more."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, free_port
from tests.gguf_files import ARRAY, F32, PLAIN, STRING, TENSORS, U32, gguf

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]

SECONDS = 5.0
"""Until it is refused, the start of Python included; twice that beside another one."""
HUGE = 1 << 60
WHOLE = gguf()


def _with(key: str, kind: int, content: object) -> bytes:
    return gguf(meta={**PLAIN, key: (kind, content)})


def _raw(key: str, kind: int, content: bytes) -> bytes:
    """The metadata of a whole file, the last value of which is these bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    name = key.encode()
    return (
        head + struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + content + bytes(64)
    )


def _tensors(*rows: tuple[str, tuple[int, ...], int, int]) -> bytes:
    return gguf(tensors=list(rows))


BYTES: dict[str, bytes] = {
    "empty": b"",
    "four bytes": b"GGUF",
    "magic": b"GGML" + WHOLE[4:],
    "big-endian": gguf(version=0x03000000),
    "version 0": gguf(version=0),
    "version 1": gguf(version=1),
    "version 99": gguf(version=99),
    "tensors of 2^63-1": gguf(tensor_count=(1 << 63) - 1),
    "keys of 2^40": gguf(key_count=1 << 40),
    "key of 2^60": b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, HUGE) + bytes(64),
    "string of 2^60": _raw("general.name", STRING, struct.pack("<Q", HUGE)),
    "array of 2^60": _raw("x", ARRAY, struct.pack("<IQ", U32, HUGE)),
    "array of strings of 2^60": _raw("x", ARRAY, struct.pack("<IQ", STRING, HUGE)),
    "array in an array": _raw("x", ARRAY, struct.pack("<IQ", ARRAY, 1)),
    "value of an unknown type": _raw("x", 99, b""),
    "no architecture": gguf(meta={k: v for k, v in PLAIN.items() if "architecture" not in k}),
    "two tensors of one name": _tensors(TENSORS[0], (TENSORS[0][0], *TENSORS[1][1:])),
    "five dimensions": _tensors(("a", (1, 1, 1, 1, 1), 0, 0)),
    "a dimension of 0": _tensors(("a", (64, 0), 0, 0)),
    "size that wraps": _tensors(("a", (1 << 32, 1 << 32), 0, 0)),
    "elements beyond 2^64": _tensors(("a", (1 << 62, 1 << 62, 1 << 62, 1 << 62), 0, 0)),
    "offset past the end": _tensors((*TENSORS[0][:3], 1 << 40)),
    "offset that wraps": _tensors((*TENSORS[0][:3], (1 << 64) - 32)),
    "offset not aligned": _tensors((*TENSORS[0][:3], 7)),
    "unknown tensor type": _tensors(("a", (64,), 4242, 0)),
    "half a block": _tensors(("a", (33,), 3, 0)),
    "long tensor name": _tensors(("a" * 500, (64,), 0, 0)),
    "alignment of 0": _with("general.alignment", U32, 0),
    "alignment of 7": _with("general.alignment", U32, 7),
    "no tensors": _tensors(),
    "an adapter": _with("general.type", STRING, "adapter"),
    "a web page": b"<!DOCTYPE html><html>not found</html>" * 10,
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    **{f"cut at {cut} %": WHOLE[: len(WHOLE) * cut // 100] for cut in (5, 30, 60, 80, 95, 99)},
}
SOUND_BUT_NO_MODEL: dict[str, bytes] = {
    "an unknown architecture": _with("general.architecture", STRING, "nosuch"),
    "tensors missing": WHOLE,
    "negative byte token": gguf(
        meta={
            **PLAIN,
            "tokenizer.ggml.model": (STRING, "llama"),
            "tokenizer.ggml.tokens": (ARRAY, (STRING, ["<0x-1>", "<0xZZ>", "<0x>"])),
            "tokenizer.ggml.token_type": (ARRAY, (U32, [6, 6, 6])),
            "tokenizer.ggml.scores": (ARRAY, (F32, [0.0, 0.0, 0.0])),
        }
    ),
    "token types out of range": _with("tokenizer.ggml.token_type", ARRAY, (U32, [1 << 31] * 3)),
}
"""The engine process finds out, and may end over it."""
PLACES: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "directory": Path.mkdir,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "dangling": lambda path: path.symlink_to("nothing"),
}


def served(path: Path) -> tuple[int, str, float]:
    """Exit code, what was told, seconds."""
    words = [sys.executable, "-m", "server", "serve", str(path), "--port", str(free_port())]
    began = time.monotonic()
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def test_forty_files_are_refused_with_one_line_that_names_them(tmp_path: Path) -> None:
    paths: dict[str, Path] = {}
    for name, content in {**BYTES, **SOUND_BUT_NO_MODEL}.items():
        paths[name] = tmp_path / f"{name.replace(' ', '-').replace('%', 'percent')}.gguf"
        paths[name].write_bytes(content)
    for name, make in PLACES.items():
        paths[name] = tmp_path / f"{name}.gguf"
        make(paths[name])
    assert len(paths) >= 40
    with ThreadPoolExecutor(2) as threads:
        told = dict(zip(paths, threads.map(served, paths.values()), strict=True))
    for name, (code, text, seconds) in told.items():
        assert code == 2, (name, text)
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and "Traceback" not in text, (name, text)
        if name not in SOUND_BUT_NO_MODEL:
            assert paths[name].name in errors[0] and len(text.splitlines()) == 1, (name, text)
        assert seconds < 2 * SECONDS, (name, seconds)
