"""What `server.llama.measure` is asked and answers: one JSON object a line. No llama.cpp here."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from server.core.config import RunnerConfig

Format = Literal["Q8_0", "BF16", "F16", "Q4_0", "IQ4_NL"]
"""The weight formats that can be written."""

MAX_PROMPT = 4096


class MeasureSpeed(Struct, frozen=True, tag="speed"):
    """Prefill `prompt_tokens`, then decode behind them with one stream and with all of them.

    A phase that is slow ends early, after about `phase_seconds`.
    """

    config: RunnerConfig
    prompt_tokens: Annotated[int, Meta(ge=16, le=MAX_PROMPT)] = 256
    decode_steps: Annotated[int, Meta(ge=1, le=256)] = 24
    streams: Annotated[int, Meta(ge=1, le=64)] = 8
    phase_seconds: Annotated[float, Meta(gt=0, le=60)] = 2.0


class KeepReference(Struct, frozen=True, tag="reference"):
    """Keep in a file the log-probabilities of what may follow each token of a fixed text."""

    config: RunnerConfig
    keep: str


class Compare(Struct, frozen=True, tag="compare"):
    """How far `config` is from what was kept, over the same tokens."""

    config: RunnerConfig
    kept: str


class Encode(Struct, frozen=True, tag="encode"):
    source: str
    target: str
    format: Format
    threads: Annotated[int, Meta(ge=1, le=512)]


Request = MeasureSpeed | KeepReference | Compare | Encode


class Speed(Struct, frozen=True, tag="speed"):
    """Tokens a second; `weights` and `kv_token` in bytes."""

    prefill: float
    decode_one: float
    decode_many: float
    weights: int
    kv_token: int


class Quality(Struct, frozen=True, tag="quality"):
    """Mean Kullback-Leibler divergence from the original in nats, share of equal first choices."""

    divergence: float
    agreement: float
    tokens: int


class Done(Struct, frozen=True, tag="done"):
    engine: str


class Refused(Struct, frozen=True, tag="refused"):
    message: str


Answer = Speed | Quality | Done | Refused
