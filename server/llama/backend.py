"""What computes, made ready once a process.

A build for one processor has its code in the library. A build for many (`GGML_BACKEND_DL` and
`GGML_CPU_ALL_VARIANTS`, as in the container) has it in modules, and the best that this processor
can run is to be loaded.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp
from llama_cpp.llama_cpp import _lib


def init() -> None:
    """Raises OSError where no module fits."""
    llama_cpp.llama_backend_init()
    if _devices() == 0:
        # By libllama's own handle: libggml may be in the process a second time, by another name.
        load = _lib.ggml_backend_load_all_from_path
        load.argtypes, load.restype = (ctypes.c_char_p,), None
        load(str(_modules()).encode())
        if _devices() == 0:
            raise OSError(f"no module of llama.cpp in {_modules()} fits this processor")


def _devices() -> int:
    count = _lib.ggml_backend_dev_count
    count.argtypes, count.restype = (), ctypes.c_size_t
    return int(count())


def _modules() -> Path:
    return Path(llama_cpp.__file__).parent / "lib"
