from __future__ import annotations

import ctypes
import os
import re
import struct
import tracemalloc
from importlib import metadata
from pathlib import Path

import pytest

from server.catalog import GGUFHeader, read_header
from server.catalog.ggml import TENSOR_TYPES
from server.core.errors import ModelFileError
from tests.gguf_files import ARRAY, BOOL, PLAIN, STRING, TENSORS, U32, gguf, text, write_gguf


def header(tmp_path: Path, content: bytes) -> GGUFHeader:
    return read_header(write_gguf(tmp_path / "m.gguf", content))


def complaint(tmp_path: Path, content: bytes) -> str:
    path = write_gguf(tmp_path / "m.gguf", content)
    with pytest.raises(ModelFileError) as caught:
        read_header(path)
    message = caught.value.message
    assert message.startswith(f"{path} ")
    assert "\n" not in message
    assert "; " in message, "a remedy follows the cause"
    return message


def with_meta(**changes: tuple[int, object]) -> bytes:
    return gguf(meta=PLAIN | {key.replace("__", "."): value for key, value in changes.items()})


def test_a_sound_file(tmp_path: Path) -> None:
    content = gguf()
    assert header(tmp_path, content) == GGUFHeader(
        version=3,
        architecture="llama",
        name="Tiny",
        quantisation="Q4_1",
        context_length=2048,
        parameters=64 * 3 + 64 * 64,
        size=len(content),
        chat_template=True,
    )


@pytest.mark.parametrize(
    ("architecture", "more", "kind"),
    [
        ("llama", {}, "generate"),
        ("llama", {"pooling_type": (U32, 0)}, "generate"),
        ("qwen3", {"pooling_type": (U32, 3)}, "embed"),
        ("qwen3", {"pooling_type": (U32, 4)}, "rerank"),
        ("bert", {"pooling_type": (U32, 4)}, "rerank"),
        ("bert", {}, "embed"),
        ("qwen2", {"attention.causal": (BOOL, False)}, "embed"),
        ("dream", {"attention.causal": (BOOL, False)}, "generate"),
    ],
    ids=str,
)
def test_what_a_model_is_for(
    tmp_path: Path, architecture: str, more: dict[str, tuple[int, object]], kind: str
) -> None:
    named = {f"{architecture}.{key}": value for key, value in more.items()}
    meta = PLAIN | {"general.architecture": (STRING, architecture)} | named
    assert header(tmp_path, gguf(meta=meta)).kind == kind


def test_version_2_is_read(tmp_path: Path) -> None:
    assert header(tmp_path, gguf(version=2)).version == 2


def test_without_a_file_type_the_heaviest_tensor_type_counts(tmp_path: Path) -> None:
    meta = {key: value for key, value in PLAIN.items() if key != "general.file_type"}
    assert header(tmp_path, gguf(meta=meta)).quantisation == "Q4_1"


def test_optional_facts_may_be_missing(tmp_path: Path) -> None:
    found = header(tmp_path, gguf(meta={"general.architecture": (STRING, "llama")}))
    assert (found.name, found.context_length, found.chat_template) == (None, None, False)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    whole = gguf()
    for length in [*range(1, len(whole) - 3328, 7), len(whole) - 3000, len(whole) - 1]:
        assert "truncated" in complaint(tmp_path, whole[:length])


def test_no_damaged_byte_makes_it_crash(tmp_path: Path) -> None:
    whole = gguf()
    path = tmp_path / "m.gguf"
    for position in range(0, len(whole) - 3328, 3):
        for wrong in (0x00, 0xFF):
            path.write_bytes(whole[:position] + bytes([wrong]) + whole[position + 1 :])
            try:
                read_header(path)
            except ModelFileError as error:
                assert "\n" not in error.message


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty"),
        (b"GGUF", "is truncated: 4 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>Not here</body></html>", "web page"),
        (b"lmgg" + bytes(40), "old GGML format"),
        (b"\x7fELF" + bytes(40), "is not a GGUF model: it starts with b'\\x7fELF'"),
        (gguf(version=1), "has GGUF version 1"),
        (gguf(version=4), "has GGUF version 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    ],
)
def test_what_is_not_a_model(tmp_path: Path, content: bytes, cause: str) -> None:
    assert cause in complaint(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (gguf(key_count=1 << 63), "claims 9223372036854775808 metadata keys"),
        (gguf(tensor_count=1 << 63), "claims 9223372036854775808 tensors"),
        (gguf(key_count=len(PLAIN) + 1), "is "),
        (gguf(tensor_count=len(TENSORS) + 1), "is "),
        (with_meta(extra=(ARRAY, (99, []))), "extra has the unknown value type 99"),
        (with_meta(extra=(ARRAY, (ARRAY, []))), "extra has the unknown value type 9"),
        (with_meta(general__alignment=(U32, 0)), "its alignment is 0"),
        (with_meta(general__alignment=(U32, 48)), "its alignment is 48"),
        (with_meta(general__architecture=(U32, 1)), "names no architecture"),
        (with_meta(general__architecture=(STRING, "clip")), "is a projector"),
        (with_meta(general__type=(STRING, "adapter")), "is a adapter"),
        (gguf(tensors=[]), "is a vocabulary"),
        (gguf(tensors=[("t", (1, 1, 1, 1, 1), 0, 0)]), "tensor t has 5 dimensions"),
        (gguf(tensors=[("t", (64, 0), 0, 0)]), "tensor t is empty"),
        (gguf(tensors=[("t", (64,), 0, 0), ("t", (64,), 0, 256)]), "two tensors t"),
        (gguf(tensors=[("t", (64,), 4, 0)]), "tensor t of type 4"),
        (gguf(tensors=[("t", (33,), 3, 0)]), "rows of tensor t are not whole Q4_1 blocks"),
        (gguf(tensors=[("t", (64,), 0, 1)]), "tensor t is not aligned"),
        (gguf(tensors=[("t", (64,), 0, 1 << 40)]), "tensor t ends at byte"),
        (gguf(tensors=[("t", (1 << 62, 1 << 62), 0, 0)]), "tensor t ends at byte"),
        (gguf(tensors=[("t" * 65, (64,), 0, 0)]), "a tensor name claims 65 bytes"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, cause: str) -> None:
    assert cause in complaint(tmp_path, content)


def test_huge_lengths_are_refused_not_allocated(tmp_path: Path) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    key = text("k") + struct.pack("<I", STRING)
    assert "k claims" in complaint(tmp_path, head + key + struct.pack("<Q", 1 << 62))
    array = text("k") + struct.pack("<IIQ", ARRAY, STRING, 1 << 62)
    assert "strings in k" in complaint(tmp_path, head + array)
    numbers = text("k") + struct.pack("<IIQ", ARRAY, U32, 1 << 62)
    assert "truncated" in complaint(tmp_path, head + numbers)
    assert "a metadata key claims" in complaint(tmp_path, head + struct.pack("<Q", 1 << 62))


def test_a_key_given_twice_is_damage(tmp_path: Path) -> None:
    twice = (text("k") + struct.pack("<II", U32, 1)) * 2
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + twice
    assert "the key k occurs twice" in complaint(tmp_path, content)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist; check the path"):
        read_header(tmp_path / "none.gguf")
    with pytest.raises(ModelFileError, match="is not a regular file"):
        read_header(tmp_path)
    (tmp_path / "zeros.gguf").symlink_to("/dev/zero")
    with pytest.raises(ModelFileError, match="is not a regular file"):
        read_header(tmp_path / "zeros.gguf")
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match="is not a regular file"):
        read_header(tmp_path / "pipe.gguf")


def test_memory_does_not_grow_with_the_vocabulary(tmp_path: Path) -> None:
    words = [f"token{number}" for number in range(100_000)]
    path = write_gguf(
        tmp_path / "m.gguf", with_meta(tokenizer__ggml__tokens=(ARRAY, (STRING, words)))
    )
    tracemalloc.start()
    try:
        read_header(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 256 << 10


def test_a_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    assert header(tmp_path, with_meta(general__name=(STRING, "a\x1b[2Jb\n"))).name == "a?[2Jb?"


def test_the_tensor_types_are_those_of_the_installed_llama_cpp() -> None:
    ggml = _installed_ggml()
    known = {
        kind: (blocks, ggml.ggml_type_size(kind))
        for kind in range(max(TENSOR_TYPES) + 1)
        if (blocks := ggml.ggml_blck_size(kind))
    }
    assert {kind: (t.block, t.bytes) for kind, t in TENSOR_TYPES.items()} == known


def _installed_ggml() -> ctypes.CDLL:
    """The library alone, without importing llama_cpp."""
    files = metadata.files("llama-cpp-python") or []
    library = next(file for file in files if re.fullmatch(r"libggml-base\.(so|dylib)", file.name))
    ggml = ctypes.CDLL(str(library.locate()))
    ggml.ggml_blck_size.restype = ctypes.c_int64
    ggml.ggml_type_size.restype = ctypes.c_size_t
    return ggml
