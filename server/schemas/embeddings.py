"""/v1/embeddings on the wire. Vectors stay bytes unless the client wants numbers in JSON."""

from __future__ import annotations

import json
from array import array
from base64 import b64encode
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Struct
from pydantic import Field, PlainValidator

from server.core.errors import InvalidRequest
from server.core.types import EmbedRequest

from .common import new_id
from .keeping import KeepFields

MAX_INPUTS = 2048

Encoding = Literal["float", "base64"]


class Inputs(Struct, frozen=True):
    """Texts, or lists of token ids. `alone`: not a list of them, but one."""

    texts: tuple[str, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()
    alone: bool = False

    def check_tokens(self, vocabulary: int) -> None:
        """Raises InvalidRequest for ids that the model does not have."""
        for index, ids in enumerate(self.tokens):
            wrong = next((id for id in (min(ids), max(ids)) if not 0 <= id < vocabulary), None)
            if wrong is not None:
                name = "input" if self.alone else f"input[{index}]"
                raise InvalidRequest(
                    f"Invalid '{name}': the token id {str(wrong)[:32]} is not in this model's"
                    f" vocabulary of {vocabulary} tokens. Token ids must come from this model's own"
                    " tokenizer; send text instead. LangChain's OpenAIEmbeddings sends text with"
                    " check_embedding_ctx_length=False.",
                    param=name,
                )


def read_inputs(value: Any) -> Inputs:
    """Any of the four shapes. Raises InvalidRequest that names the wrong element."""
    if isinstance(value, str):
        return Inputs((_text(value, "input"),), alone=True)
    if not isinstance(value, list):
        raise _wrong_type("input", "a string, a list of strings, or lists of token ids")
    if not value:
        raise _empty("input", "empty_array")
    if _is_id(value[0]):
        return Inputs(tokens=(_ids(value, "input"),), alone=True)
    if len(value) > MAX_INPUTS:
        raise InvalidRequest(
            f"Invalid 'input': array too long. Expected an array with maximum length {MAX_INPUTS},"
            f" but got an array with length {len(value)} instead.",
            param="input",
            code="array_above_max_length",
        )
    if isinstance(value[0], list):
        return Inputs(tokens=tuple(_ids(ids, f"input[{i}]") for i, ids in enumerate(value)))
    return Inputs(tuple(_text(text, f"input[{i}]") for i, text in enumerate(value)))


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(name, "a string")
    if not value:
        raise _empty(name, "invalid_value")
    return value


def _ids(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise _wrong_type(name, "a list of token ids")
    if not value:
        raise _empty(name, "empty_array")
    wrong = next((i for i, id in enumerate(value) if not _is_id(id)), None)
    if wrong is not None:
        raise _wrong_type(f"{name}[{wrong}]", "a token id")
    return tuple(value)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong_type(name: str, wanted: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid type for '{name}': expected {wanted}.", param=name, code="invalid_type"
    )


def _empty(name: str, code: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid '{name}': it must not be empty.", param=name, code=code)


_Shapes = str | list[str] | list[int] | list[list[int]]


class EmbeddingsRequest(KeepFields):
    ignored: ClassVar[dict[str, str]] = {"user": "keys tell users apart"}

    input: Annotated[Inputs, PlainValidator(read_inputs, json_schema_input_type=_Shapes)]
    """At most 2048 strings or lists of token ids, none empty, none longer than the context."""
    model: str | None = None
    encoding_format: Encoding | None = None
    """Absent: float. The Python SDK asks for base64 by itself."""
    dimensions: int | None = Field(None, ge=1)
    """The vector is cut and normalised again. Of Matryoshka models only; others have one size."""

    def to_engine(self, scope: str) -> EmbedRequest:
        return EmbedRequest(
            new_id("emb-"),
            self.input.texts,
            self.input.tokens,
            dimensions=self.dimensions,
            alone=self.input.alone,
            scope=scope,
            keep=self.keep(),
        )


def embeddings_body(
    model: str, vectors: list[bytes], prompt_tokens: int, encoding: Encoding
) -> bytes:
    usage = usage_of(prompt_tokens)
    tail = f'], "model": {json.dumps(model)}, "usage": {json.dumps(usage)}}}'
    encode = _base64 if encoding == "base64" else _numbers
    items = b", ".join(
        b'{"object": "embedding", "index": %d, "embedding": %b}' % (index, encode(vector))
        for index, vector in enumerate(vectors)
    )
    return b'{"object": "list", "data": [' + items + tail.encode()


def usage_of(prompt_tokens: int) -> dict[str, int]:
    """Nothing is generated: the prompt is all there is."""
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}


def floats(vector: bytes) -> Iterator[float]:
    """Little-endian float32, each with the nine digits that tell it from its neighbours."""
    return (float(f"{number:.9g}") for number in array("f", vector))


def _base64(vector: bytes) -> bytes:
    return b'"%b"' % b64encode(vector)


def _numbers(vector: bytes) -> bytes:
    return json.dumps(list(floats(vector))).encode()
