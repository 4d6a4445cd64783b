"""One llama.cpp sampler chain a sequence, in llama.cpp's order; greedy is an argmax in numpy."""

from __future__ import annotations

import ctypes
import secrets
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from server.core.errors import InvalidRequest
from server.core.types import GenerateRequest, Resume, SamplingParams

from .candidates import Candidates
from .grammar import Constraint, GrammarBroken

Logits = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
MAX_PENALTY_WINDOW = 1 << 16
BANNED = -100.0
"""A `logit_bias` of this means never."""
_MIROSTAT_CANDIDATES = 100

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1 << 30),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "repeat_penalty": (0.01, 100.0),
    "repeat_last_n": (0, MAX_PENALTY_WINDOW),
    "mirostat": (0, 2),
    "mirostat_tau": (0.01, 100.0),
    "mirostat_eta": (0.0, 1.0),
    "min_tokens": (0, 1 << 30),
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
        if not BANNED <= bias <= 100.0:
            raise InvalidRequest("'logit_bias' values go from -100 to 100.", param="logit_bias")


class Sampler:
    """Chooses tokens for one sequence. `check` must have passed.

    `ends` are the tokens that would end it, `candidates` room that samplers may share.
    """

    def __init__(
        self,
        request: GenerateRequest,
        prompt: list[int],
        *,
        window: int,
        ends: frozenset[int],
        candidates: Candidates,
        constraint: Constraint | None = None,
    ) -> None:
        sampling = request.sampling
        self._candidates = candidates
        self._constraint = constraint
        self._ends = ends
        self._min_tokens = 0 if sampling.ignore_end else sampling.min_tokens
        self._chosen = 0
        self._bias = _bias(sampling, ends)
        self._chain: Any = None
        self._seeded = sampling.seed is not None and not sampling.greedy
        self._draws = 0
        stages = _adjusting_stages(sampling, self._bias, prompt, candidates.vocabulary, window)
        if stages or not sampling.greedy:
            stages += _choosing_stages(sampling, candidates.vocabulary)
            params = llama_cpp.llama_sampler_chain_default_params()
            self._chain = llama_cpp.llama_sampler_chain_init(params)
            for stage in stages:
                llama_cpp.llama_sampler_chain_add(self._chain, stage)
        if request.resume is not None:
            self._replay(request.resume)
            if self._seeded and not sampling.mirostat:
                candidates.draw(stages[-1], request.resume.draws)

    @property
    def draws(self) -> int:
        """Random numbers taken so far, where the request gave the seed."""
        return self._draws if self._seeded else 0

    def _replay(self, resume: Resume) -> None:
        for token in resume.tokens:
            if self._constraint is not None:
                self._constraint.take(token)
            self._accept(token)
        self._chosen, self._draws = len(resume.tokens), resume.draws

    def sample(self, context: Any, output: int, logits: Logits) -> int:
        """The next token. Raises GrammarBroken."""
        early = self._chosen < self._min_tokens
        if self._constraint is None and not early:
            token = self._sample_freely(context, output, logits)
        else:
            token = self._draw(logits, self._not_the_end() if early else None)
            if self._constraint is not None and not self._constraint.take(token):
                token = self._sample_allowed(self._constraint, logits, early)
            self._accept(token)
        self._chosen += 1
        return token

    def forced(self) -> list[int]:
        """The tokens after the last one to which the grammar leaves no alternative."""
        found = self._constraint.take_forced() if self._constraint is not None else []
        for token in found:
            self._accept(token)
        self._chosen += len(found)
        return found

    @property
    def complete(self) -> bool:
        return self._constraint is not None and self._constraint.complete

    def ended_by(self, token: int) -> bool:
        """Whether `token`, the last one, ends the sequence."""
        if self._constraint is not None:
            return self._constraint.ended
        return token in self._ends

    def close(self) -> None:
        if self._chain is not None:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None

    def _sample_freely(self, context: Any, output: int, logits: Logits) -> int:
        if self._chain is None:
            return int(logits.argmax())
        self._draws += 1
        # It accepts the token by itself.
        return int(llama_cpp.llama_sampler_sample(self._chain, context, output))

    def _sample_allowed(self, constraint: Constraint, logits: Logits, early: bool) -> int:
        """What the grammar forbids is out; where only the end is left, bans do not count."""
        allowed = constraint.allowed()
        if early and (allowed & self._not_the_end()).any():
            allowed &= self._not_the_end()
        token = self._draw(logits, allowed)
        if not constraint.take(token):
            raise GrammarBroken("the grammar allows no token here")
        return token

    def _draw(self, logits: Logits, allowed: Flags | None) -> int:
        """Choose by the chain without accepting."""
        if self._chain is None or (allowed is not None and self._all_banned(allowed)):
            return int((logits if allowed is None else np.where(allowed, logits, -np.inf)).argmax())
        self._draws += 1
        return self._candidates.choose(self._chain, logits, allowed)

    def _accept(self, token: int) -> None:
        if self._chain is not None:
            llama_cpp.llama_sampler_accept(self._chain, token)

    def _not_the_end(self) -> Flags:
        flags = np.ones(self._candidates.vocabulary, np.bool_)
        flags[list(self._ends)] = False
        return flags

    def _all_banned(self, allowed: Flags) -> bool:
        banned = [token for token, bias in self._bias.items() if bias == -np.inf]
        return bool(banned) and int(allowed.sum()) == int(allowed[banned].sum())


def _bias(sampling: SamplingParams, ends: frozenset[int]) -> dict[int, float]:
    bias = {t: b if b > BANNED else -np.inf for t, b in sampling.logit_bias.items()}
    return bias | dict.fromkeys(ends, -np.inf) if sampling.ignore_end else bias


def _adjusting_stages(
    sampling: SamplingParams,
    bias: dict[int, float],
    prompt: list[int],
    vocabulary: int,
    window: int,
) -> list[Any]:
    stages = []
    if bias:
        stages.append(_logit_bias(bias, vocabulary))
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


def _choosing_stages(sampling: SamplingParams, vocabulary: int) -> list[Any]:
    if sampling.greedy:
        return [llama_cpp.llama_sampler_init_greedy()]
    seed = sampling.seed if sampling.seed is not None else secrets.randbits(32)
    if sampling.mirostat:
        return _mirostat_stages(sampling, vocabulary, seed)
    stages = []
    if sampling.top_k:
        stages.append(llama_cpp.llama_sampler_init_top_k(sampling.top_k))
    if sampling.typical_p < 1.0:
        stages.append(llama_cpp.llama_sampler_init_typical(sampling.typical_p, 1))
    if sampling.top_p < 1.0:
        stages.append(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0.0:
        stages.append(llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
    if sampling.temperature != 1.0:
        stages.append(llama_cpp.llama_sampler_init_temp(sampling.temperature))
    stages.append(llama_cpp.llama_sampler_init_dist(seed))
    return stages


def _mirostat_stages(sampling: SamplingParams, vocabulary: int, seed: int) -> list[Any]:
    """Mirostat cuts the candidates by itself; llama.cpp then applies no other cut."""
    temperature = llama_cpp.llama_sampler_init_temp(sampling.temperature)
    tau, eta = sampling.mirostat_tau, sampling.mirostat_eta
    if sampling.mirostat == 1:
        choice = llama_cpp.llama_sampler_init_mirostat(
            vocabulary, seed, tau, eta, _MIROSTAT_CANDIDATES
        )
    else:
        choice = llama_cpp.llama_sampler_init_mirostat_v2(seed, tau, eta)
    return [temperature, choice]


def _logit_bias(bias: dict[int, float], vocabulary: int) -> Any:
    entries = (llama_cpp.llama_logit_bias * len(bias))()
    for entry, (token, value) in zip(entries, bias.items(), strict=True):
        entry.token = token
        entry.bias = value
    pointer = ctypes.cast(entries, ctypes.POINTER(llama_cpp.llama_logit_bias))
    return llama_cpp.llama_sampler_init_logit_bias(vocabulary, len(bias), pointer)
