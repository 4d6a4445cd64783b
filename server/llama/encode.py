"""The same weights written in another format."""

from __future__ import annotations

import ctypes

import llama_cpp

from server.core.errors import ModelFileError

from . import log
from .probe import Encode, Format

_FILE_TYPES: dict[Format, int] = {
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "BF16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "F16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "IQ4_NL": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_NL,
}
_BUFFER_BYTES = 64 << 20
"""llama.cpp would take up to 8 GiB, and is slower then."""


def encode(request: Encode) -> None:
    """Blocks for as long as reading and writing the model takes. Raises ModelFileError."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = _FILE_TYPES[request.format]
    params.nthread = request.threads
    params.allow_requantize = True
    params.max_buf_size = _BUFFER_BYTES
    status = llama_cpp.llama_model_quantize(
        request.source.encode(), request.target.encode(), ctypes.byref(params)
    )
    if status:
        raise ModelFileError(
            f"llama.cpp cannot write it as {request.format} ({log.recent() or 'no reason given'})"
        )
