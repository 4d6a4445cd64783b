"""What is tried: weight formats for a file, and settings around the usual ones."""

from __future__ import annotations

from collections.abc import Set

import msgspec
from msgspec import Struct

from server.core.config import RunnerConfig, Tuning
from server.llama.probe import Format

from .machine import logical_threads

COUSINS: dict[str, Format] = {"Q4_1": "Q4_0", "IQ4_XS": "IQ4_NL"}
"""Formats of the same kind that llama.cpp repacks for a CPU, where it does not repack the first."""
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
_F16_FLAGS = {"avx512_fp16", "amx_fp16", "asimdhp"}
_BITS: dict[Format, float] = {"Q8_0": 8.5, "BF16": 16, "F16": 16, "Q4_0": 4.5, "IQ4_NL": 4.5}
_KEPT_ANYWAY = 1.05
_MICRO_BATCHES = (32, 128, 256)


class Candidate(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to compute a model. Weights of None are those of the file itself."""

    weights: Format | None = None
    tuning: Tuning = Tuning()

    @property
    def changes_answers(self) -> bool:
        return self.weights is not None or self.tuning.kv_type != "f16"

    def config(self, path: str, gpu_layers: int) -> RunnerConfig:
        return RunnerConfig(path=path, gpu_layers=gpu_layers, **msgspec.structs.asdict(self.tuning))

    def text(self, cores: int) -> str:
        """`Q8_0 weights, 2 threads`, naming only what differs from the usual."""
        tuning = self.tuning
        parts = [f"{self.weights} weights"] if self.weights else []
        parts += describe(tuning, cores)
        return ", ".join(parts) or "as shipped"


def describe(tuning: Tuning, cores: int) -> list[str]:
    """What differs from the usual, in words."""
    parts = []
    if tuning.threads not in (None, cores):
        parts.append(f"{tuning.threads} thread{'s' if tuning.threads != 1 else ''}")
    if not tuning.flash_attention:
        parts.append("flash attention off")
    if tuning.kv_type != "f16":
        parts.append(f"{tuning.kv_type} KV")
    if tuning.micro_batch != Tuning().micro_batch:
        parts.append(f"micro-batch {tuning.micro_batch}")
    return parts


def formats_for(quantisation: str, flags: Set[str]) -> list[Format]:
    """Near-lossless formats this CPU computes in, and the repacked cousin of the file's own."""
    found: list[Format] = ["Q8_0"]
    if not flags or flags & _BF16_FLAGS:
        found.append("BF16")
    if flags & _F16_FLAGS:
        found.append("F16")
    cousin = COUSINS.get(quantisation)
    if cousin:
        found.append(cousin)
    return [form for form in found if form != quantisation]


def size_of(form: Format, parameters: int) -> int:
    """About how many bytes the file will have."""
    return int(parameters * _BITS[form] / 8 * _KEPT_ANYWAY)


def thread_choices(cores: int) -> list[int]:
    around = {cores - 1, logical_threads()} | ({cores // 2} if cores >= 4 else set())
    return sorted(n for n in around - {cores} if n >= 1)


def variants(factor: str, base: Candidate, cores: int) -> list[Candidate]:
    """The alternatives to `base` in one setting."""
    changes: dict[str, list[dict[str, object]]] = {
        "threads": [{"threads": n} for n in thread_choices(cores)],
        "flash attention": [{"flash_attention": False}],
        "KV type": [{"kv_type": "q8_0"}] if base.tuning.flash_attention else [],
        "micro-batch": [{"micro_batch": n} for n in _MICRO_BATCHES],
    }
    return [
        Candidate(base.weights, msgspec.structs.replace(base.tuning, **change))
        for change in changes[factor]
    ]
