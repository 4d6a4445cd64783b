"""llama.cpp as it is installed, against the processor it runs on."""

from __future__ import annotations

import platform
import signal
from collections.abc import Iterator, Set
from importlib import metadata
from pathlib import Path

import server
from server.llama.about import About, about
from server.tune.machine import cpu_flags, cpu_info

from .finding import Finding, fail, ok, warn

_FEATURES = {
    "SSE3": {"pni", "sse3"},
    "SSSE3": {"ssse3"},
    "AVX": {"avx"},
    "AVX2": {"avx2"},
    "AVX_VNNI": {"avx_vnni"},
    "F16C": {"f16c"},
    "FMA": {"fma"},
    "BMI2": {"bmi2"},
    "AVX512": {"avx512f"},
    "AVX512_VBMI": {"avx512_vbmi", "avx512vbmi"},
    "AVX512_VNNI": {"avx512_vnni"},
    "AVX512_BF16": {"avx512_bf16"},
    "AMX_INT8": {"amx_int8"},
    "NEON": {"asimd"},
    "DOTPROD": {"asimddp"},
    "FP16_VA": {"asimdhp"},
    "MATMUL_INT8": {"i8mm"},
    "SVE": {"sve"},
}
"""llama.cpp's names of what it can use, and the kernel's."""
_GPUS = ("/dev/nvidia0", "/dev/kfd")
_PACKAGE = "llama-cpp-python"


def engine_findings() -> Iterator[Finding]:
    yield versions()
    built = about()
    yield instructions(built, cpu_flags(cpu_info()))
    if isinstance(built, About):
        yield gpu(built, [path for path in _GPUS if Path(path).exists()])


def versions() -> Finding:
    engine = f"{_PACKAGE} {metadata.version(_PACKAGE)}"
    return ok(
        "versions", f"ingle {server.__version__}, {engine}, Python {platform.python_version()}"
    )


def instructions(built: About | int, flags: Set[str]) -> Finding:
    """`flags` of the processor, empty where nobody tells."""
    check = "instructions"
    if not isinstance(built, About):
        return _does_not_start(built)
    known = {name for name, ours in _FEATURES.items() if flags & ours}
    used = sorted(built.features & _FEATURES.keys())
    if flags and (missing := built.features & _FEATURES.keys() - known):
        return fail(
            check,
            f"llama.cpp was built with {_list(missing)}, which this processor has not",
            _rebuild(),
        )
    if unused := known - built.features:
        return warn(check, f"llama.cpp was built without {_list(unused)}", _rebuild())
    return ok(check, f"llama.cpp uses {_list(used)}" if used else "those that every processor has")


def gpu(built: About, devices: list[str]) -> Finding:
    if built.gpu:
        return ok("GPU", "llama.cpp was built for one")
    if devices:
        kind = "CUDA" if devices[0].endswith("nvidia0") else "HIP"
        return warn(
            "GPU",
            f"there is one ({devices[0]}), and llama.cpp was built without it",
            _rebuild(f'CMAKE_ARGS="-DGGML_{kind}=on" '),
        )
    return ok("GPU", "none is used: llama.cpp was built without")


def _does_not_start(code: int) -> Finding:
    if code == -signal.SIGILL:
        message = "llama.cpp was built for another processor and cannot run on this one"
    elif code < 0:
        message = f"llama.cpp cannot be loaded: {signal.strsignal(-code) or f'signal {-code}'}"
    else:
        message = "llama.cpp cannot be loaded"
    return fail("instructions", message, _rebuild())


def _rebuild(before: str = "") -> str:
    version = metadata.version(_PACKAGE)
    return (
        f"build it here: {before}pip install --force-reinstall --no-deps --no-cache-dir"
        f" --no-binary {_PACKAGE} {_PACKAGE}=={version}"
    )


def _list(names: Set[str] | list[str]) -> str:
    return ", ".join(sorted(names))
