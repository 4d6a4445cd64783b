"""`python -m server.llama.about`: how the installed llama.cpp was built, as JSON.

In a process of its own: one that was built for another processor ends it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from msgspec import Struct

_SECONDS = 60
_FEATURE = re.compile(r"(\w+) = (\d+)")


class About(Struct, frozen=True):
    """`features` are what it was built to use, in its own words; `gpu`: it can use one."""

    features: frozenset[str]
    gpu: bool


def about() -> About | int:
    """Or the exit code of the process that should have told, negative for a signal."""
    import msgspec

    from server.core.interpreter import same_code

    command = [sys.executable, "-m", "server.llama.about"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_SECONDS, check=False, env=same_code()
        )
    except subprocess.TimeoutExpired:
        return -14
    if done.returncode:
        return done.returncode
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=About)


def features_of(system_info: str) -> list[str]:
    """From `CPU : AVX2 = 1 | FMA = 1 | OPENMP = 1 | `."""
    return [name for name, value in _FEATURE.findall(system_info) if value != "0"]


def main() -> None:
    import llama_cpp

    from . import backend, log

    log.install()
    backend.init()
    told = {
        "features": features_of(llama_cpp.llama_print_system_info().decode()),
        "gpu": bool(llama_cpp.llama_supports_gpu_offload()),
    }
    os.write(1, b"\n" + json.dumps(told).encode() + b"\n")


if __name__ == "__main__":
    main()
