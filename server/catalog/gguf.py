"""The header of a GGUF file, read and checked without llama.cpp.

What passes here is whole and well formed: a damaged file must not reach C, where a wrong length can
end the process. Memory use does not depend on the file: arrays are stepped over in the mapped file.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from server.core.errors import ModelFileError
from server.core.types import ModelKind

from .ggml import FILE_TYPES, TENSOR_TYPES, TensorType

MAX_KEYS = 1 << 14
MAX_TENSORS = 1 << 16
MAX_KEY_BYTES = 1024
MAX_STRING_BYTES = 16 << 20
MAX_ARRAY_STRINGS = 4 << 20
MAX_DIMENSIONS = 4
MAX_TENSOR_NAME_BYTES = 63
KEPT_STRING_BYTES = 1024
MAX_EMBEDDING = 1 << 20
MAX_LAYERS = 1 << 12

T = TypeVar("T")

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_NOT_GGUF = {
    b"vers": "is a Git LFS pointer, not the model itself",
    b"<!DO": "is a web page, not a model",
    b"<htm": "is a web page, not a model",
    b"lmgg": "is in the old GGML format",
    b"tjgg": "is in the old GGJT format",
    b"fmgg": "is in the old GGMF format",
    b"PK\x03\x04": "is a zip archive, not a GGUF model",
}
_FETCH_AGAIN = "fetch or copy it again"
_NEED_GGUF = "a GGUF model file is needed"

_ENCODERS = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert"}
    | {"neo-bert", "eurobert", "gemma-embedding", "t5encoder"}
)
_DIFFUSION = frozenset({"dream", "llada", "llada-moe", "rnd1"})
"""They look both ways as encoders do, and are none."""
_POOLED, _RANKED = (1, 2, 3), 4
"""llama.cpp's pooling types: mean, first token, last token; and the scores of a reranker."""

_Value = int | float | bool | str
_Tensor = tuple[str, int, TensorType, int]
"""Name, elements, type, offset in bytes from the start of the tensor data."""


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a model file says of itself. `size` in bytes, `context_length` in tokens."""

    version: int
    architecture: str
    name: str | None
    quantisation: str
    context_length: int | None
    parameters: int
    size: int
    chat_template: bool
    kind: ModelKind = "generate"
    kv_width: int = 0
    """Numbers that K and V of a token have in all layers together; never too few."""


class _Damaged(Exception):
    """Cause and remedy; read_header adds the file."""

    def __init__(self, cause: str, remedy: str = _FETCH_AGAIN) -> None:
        super().__init__(f"{cause}; {remedy}")


def read_header(path: Path, *, label: str | None = None) -> GGUFHeader:
    """Check the file and return its header. Raises ModelFileError, one line naming file and remedy.

    `label` is what the message calls the file, its path unless told.
    """
    return _checked(path, label, lambda reader: reader.header())


def read_part(path: Path, *, label: str | None = None) -> int:
    """Check a later file of a split model and return its parameters. Raises as `read_header`."""
    return _checked(path, label, lambda reader: reader.parameters())


def _checked(path: Path, label: str | None, read: Callable[[_Reader], T]) -> T:
    try:
        return _read(path, read)
    except _Damaged as damaged:
        reason = _printable(str(damaged))
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); check the path and its permissions"
    raise ModelFileError(f"{label or path} {reason}")


def _read(path: Path, read: Callable[[_Reader], T]) -> T:
    if not path.exists():
        raise _Damaged("does not exist", "check the path, or use a name that `ingle list` shows")
    if not path.is_file():
        raise _Damaged("is not a regular file", "give the path of a .gguf file")
    size = path.stat().st_size
    if size < 24:
        cause = "is empty" if size == 0 else f"is truncated: {size} bytes"
        raise _Damaged(cause)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return read(_Reader(data))


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self._position = 0

    def header(self) -> GGUFHeader:
        return _describe(*self._contents(), self._size)

    def parameters(self) -> int:
        _, _, table = self._contents()
        return sum(elements for _, elements, _, _ in table)

    def _contents(self) -> tuple[int, dict[str, _Value], list[_Tensor]]:
        """Version, metadata and tensors."""
        version = self._preamble()
        tensors, keys = self._number(_U64), self._number(_U64)
        _cap(tensors, MAX_TENSORS, "tensors")
        _cap(keys, MAX_KEYS, "metadata keys")
        meta = self._metadata(keys)
        table = [self._tensor() for _ in range(tensors)]
        self._check_tensors(table, meta)
        return version, meta, table

    def _preamble(self) -> int:
        magic = self._take(4)
        if magic != b"GGUF":
            cause = _NOT_GGUF.get(magic, f"is not a GGUF model: it starts with {magic!r}")
            raise _Damaged(cause, _NEED_GGUF)
        version = int(self._number(_U32))
        if version in (2, 3):
            return version
        if version & 0xFFFF == 0:
            raise _Damaged("is a big-endian GGUF", "a little-endian one is needed")
        raise _Damaged(f"has GGUF version {version}", "versions 2 and 3 can be read")

    def _metadata(self, count: int) -> dict[str, _Value]:
        """The scalars and the heads of strings; an array is represented by its length."""
        meta: dict[str, _Value] = {}
        for _ in range(count):
            key = self._string(MAX_KEY_BYTES, "a metadata key")
            if key in meta:
                raise _Damaged(f"is damaged: the key {key} occurs twice")
            meta[key] = self._value(self._number(_U32), key)
        return meta

    def _value(self, kind: int, key: str) -> _Value:
        if kind == _STRING:
            return self._string(MAX_STRING_BYTES, key)
        if kind == _ARRAY:
            return self._skip_array(key)
        return self._number(_scalar(kind, key))  # type: ignore[no-any-return]

    def _skip_array(self, key: str) -> int:
        kind, count = self._number(_U32), self._number(_U64)
        if kind == _STRING:
            _cap(count, MAX_ARRAY_STRINGS, f"strings in {key}")
            self._skip_strings(count)
        else:
            self._skip(count * _scalar(kind, key).size)
        return int(count)

    def _skip_strings(self, count: int) -> None:
        data, position, end = self._data, self._position, self._size - _U64.size
        unpack = _U64.unpack_from
        for _ in range(count):
            if position > end:
                _truncated()
            position += 8 + unpack(data, position)[0]
        self._position = position
        self._skip(0)

    def _tensor(self) -> _Tensor:
        name = self._string(MAX_TENSOR_NAME_BYTES, "a tensor name")
        dimensions = self._number(_U32)
        if dimensions > MAX_DIMENSIONS:
            raise _Damaged(f"is damaged: tensor {name} has {dimensions} dimensions")
        shape = [self._number(_U64) for _ in range(dimensions)]
        if not prod(shape):
            raise _Damaged(f"is damaged: tensor {name} is empty")
        kind, offset = self._number(_U32), self._number(_U64)
        known = TENSOR_TYPES.get(kind)
        if known is None:
            raise _Damaged(
                f"has tensor {name} of type {kind}, which this version cannot compute",
                "pick another quantisation of the model",
            )
        if shape and shape[0] % known.block:
            raise _Damaged(
                f"is damaged: the rows of tensor {name} are not whole {known.name} blocks"
            )
        return name, prod(shape), known, offset

    def _check_tensors(self, table: list[_Tensor], meta: dict[str, _Value]) -> None:
        alignment = meta.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
            raise _Damaged(f"is damaged: its alignment is {alignment!r}")
        start = -(-self._position // alignment) * alignment
        twice = next(
            (n for n, count in Counter(row[0] for row in table).items() if count > 1), None
        )
        if twice is not None:
            raise _Damaged(f"is damaged: it has two tensors {twice}")
        for name, elements, kind, offset in table:
            if offset % alignment:
                raise _Damaged(f"is damaged: tensor {name} is not aligned")
            end = start + offset + elements // kind.block * kind.bytes
            if end > self._size:
                raise _Damaged(
                    f"is truncated: tensor {name} ends at byte {end} of a file of {self._size}"
                )

    def _string(self, cap: int, what: str) -> str:
        length = self._number(_U64)
        if length > cap:
            raise _Damaged(f"is damaged: {what} claims {length} bytes")
        text = self._data[self._position : self._position + min(length, KEPT_STRING_BYTES)]
        self._skip(length)
        return text.decode("utf-8", "replace")

    def _number(self, form: struct.Struct) -> Any:
        start = self._position
        self._skip(form.size)
        return form.unpack_from(self._data, start)[0]

    def _take(self, length: int) -> bytes:
        start = self._position
        self._skip(length)
        return self._data[start : start + length]

    def _skip(self, length: int) -> None:
        self._position += length
        if self._position > self._size:
            _truncated()


def _truncated() -> NoReturn:
    raise _Damaged("is truncated: it ends inside its header")


def _cap(count: int, cap: int, what: str) -> None:
    if count > cap:
        raise _Damaged(f"is damaged: it claims {count} {what}")


def _scalar(kind: int, key: str) -> struct.Struct:
    form = _SCALARS.get(kind)
    if form is None:
        raise _Damaged(f"is damaged: {key} has the unknown value type {kind}")
    return form


def _describe(version: int, meta: dict[str, _Value], table: list[_Tensor], size: int) -> GGUFHeader:
    architecture = _text(meta, "general.architecture")
    if not architecture:
        raise _Damaged("names no architecture", _NEED_GGUF)
    kind = _text(meta, "general.type") or "model"
    if kind != "model" or architecture == "clip" or not table:
        what = "projector" if architecture == "clip" else kind if kind != "model" else "vocabulary"
        raise _Damaged(f"is a {what} without a language model", "give the model's own .gguf file")
    context = meta.get(f"{architecture}.context_length")
    return GGUFHeader(
        version=version,
        architecture=architecture,
        name=_text(meta, "general.name"),
        quantisation=_quantisation(meta, table),
        context_length=context if isinstance(context, int) else None,
        parameters=sum(elements for _, elements, _, _ in table),
        size=size,
        chat_template=bool(_text(meta, "tokenizer.chat_template")),
        kind=_kind(meta, architecture),
        kv_width=_kv_width(meta, architecture, table),
    )


def _kv_width(meta: dict[str, _Value], architecture: str, table: list[_Tensor]) -> int:
    """From the tensors that K and V come out of; from the layers where those have other names."""
    embedding, layers = (
        value if isinstance(value := meta.get(f"{architecture}.{key}"), int) else 0
        for key in ("embedding_length", "block_count")
    )
    if not 0 < embedding <= MAX_EMBEDDING:
        return 0
    width = 0
    for name, elements, _, _ in table:
        if name.endswith((".attn_k.weight", ".attn_v.weight")):
            width += elements // embedding
        elif name.endswith(".attn_qkv.weight"):
            width += max(0, elements // embedding - embedding)
        elif name.endswith(".attn_kv_a_mqa.weight"):
            width += 2 * elements // embedding
    return width or 2 * min(layers, MAX_LAYERS) * embedding


def _kind(meta: dict[str, _Value], architecture: str) -> ModelKind:
    pooling = meta.get(f"{architecture}.pooling_type")
    if pooling == _RANKED:
        return "rerank"
    both_ways = meta.get(f"{architecture}.attention.causal") is False
    if pooling in _POOLED or architecture in _ENCODERS:
        return "embed"
    return "embed" if both_ways and architecture not in _DIFFUSION else "generate"


def _text(meta: dict[str, _Value], key: str) -> str | None:
    value = meta.get(key)
    return _printable(value) if isinstance(value, str) else None


def _printable(text: str) -> str:
    """What a file says may reach a terminal: no control characters."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _quantisation(meta: dict[str, _Value], table: list[_Tensor]) -> str:
    """The declared file type, or the type that holds most of the weights."""
    declared = meta.get("general.file_type")
    if isinstance(declared, int) and declared in FILE_TYPES:
        return FILE_TYPES[declared]
    weights: Counter[str] = Counter()
    for _, elements, kind, _ in table:
        weights[kind.name] += elements
    return weights.most_common(1)[0][0]
