"""One llama.cpp sampler chain a sequence, in llama.cpp's order; greedy is an argmax in numpy."""

from __future__ import annotations

import ctypes
import secrets
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from server.core.errors import InvalidRequest
from server.core.types import SamplingParams

Logits = npt.NDArray[np.float32]
MAX_PENALTY_WINDOW = 1 << 16

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1 << 30),
    "min_p": (0.0, 1.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "repeat_penalty": (0.01, 100.0),
    "repeat_last_n": (0, MAX_PENALTY_WINDOW),
}


def check(sampling: SamplingParams, vocabulary: int) -> None:
    """Raises InvalidRequest for what C would take badly: NaN, out of range, unknown token ids."""
    for name, (low, high) in _RANGES.items():
        value = getattr(sampling, name)
        if not low <= value <= high:
            raise InvalidRequest(f"'{name}' must be between {low} and {high}.", param=name)
    if sampling.seed is not None and not 0 <= sampling.seed < 1 << 32:
        raise InvalidRequest("'seed' must fit in 32 bits.", param="seed")
    for token, bias in sampling.logit_bias.items():
        if not 0 <= token < vocabulary:
            raise InvalidRequest(
                f"'logit_bias' names token {token}; this model's go from 0 to {vocabulary - 1}.",
                param="logit_bias",
            )
        if not -100.0 <= bias <= 100.0:
            raise InvalidRequest("'logit_bias' values go from -100 to 100.", param="logit_bias")


class Sampler:
    """Chooses tokens for one sequence. `check` must have passed."""

    def __init__(
        self, sampling: SamplingParams, prompt: list[int], vocabulary: int, window: int
    ) -> None:
        self._chain: Any = None
        stages = _adjusting_stages(sampling, prompt, vocabulary, window)
        if sampling.greedy and not stages:
            return
        stages += [_greedy()] if sampling.greedy else _drawing_stages(sampling)
        params = llama_cpp.llama_sampler_chain_default_params()
        self._chain = llama_cpp.llama_sampler_chain_init(params)
        for stage in stages:
            llama_cpp.llama_sampler_chain_add(self._chain, stage)

    def sample(self, context: Any, output: int, logits: Logits) -> int:
        if self._chain is None:
            return int(logits.argmax())
        return int(llama_cpp.llama_sampler_sample(self._chain, context, output))

    def close(self) -> None:
        if self._chain is not None:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None


def _adjusting_stages(
    sampling: SamplingParams, prompt: list[int], vocabulary: int, window: int
) -> list[Any]:
    stages = []
    if sampling.logit_bias:
        stages.append(_logit_bias(sampling.logit_bias, vocabulary))
    if sampling.repeat_penalty != 1.0 and sampling.repeat_last_n:
        last_n = min(sampling.repeat_last_n, window)
        stage = llama_cpp.llama_sampler_init_penalties(
            vocabulary, last_n, sampling.repeat_penalty, 0.0, 0.0
        )
        for token in prompt[-last_n:]:
            llama_cpp.llama_sampler_accept(stage, token)
        stages.append(stage)
    if sampling.frequency_penalty or sampling.presence_penalty:
        stages.append(
            llama_cpp.llama_sampler_init_penalties(
                vocabulary, window, 1.0, sampling.frequency_penalty, sampling.presence_penalty
            )
        )
    return stages


def _drawing_stages(sampling: SamplingParams) -> list[Any]:
    stages = []
    if sampling.top_k:
        stages.append(llama_cpp.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1.0:
        stages.append(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0.0:
        stages.append(llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
    if sampling.temperature != 1.0:
        stages.append(llama_cpp.llama_sampler_init_temp(sampling.temperature))
    seed = sampling.seed if sampling.seed is not None else secrets.randbits(32)
    stages.append(llama_cpp.llama_sampler_init_dist(seed))
    return stages


def _greedy() -> Any:
    return llama_cpp.llama_sampler_init_greedy()


def _logit_bias(bias: dict[int, float], vocabulary: int) -> Any:
    entries = (llama_cpp.llama_logit_bias * len(bias))()
    for entry, (token, value) in zip(entries, bias.items(), strict=True):
        entry.token = token
        entry.bias = value if value > -100.0 else -float("inf")
    pointer = ctypes.cast(entries, ctypes.POINTER(llama_cpp.llama_logit_bias))
    return llama_cpp.llama_sampler_init_logit_bias(vocabulary, len(bias), pointer)
