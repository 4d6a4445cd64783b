"""The borders: what services see of an engine, what the engine loop sees of a runner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from server.core.config import RunnerConfig
from server.core.plan import BatchPlan, MemoryTraits, StepResult, StepStats
from server.core.types import EngineEvent, GenerateRequest, ModelInfo, SamplingParams, TextPiece


class Engine(Protocol):
    """One loaded model, seen from the API process."""

    @property
    def name(self) -> str: ...

    @property
    def info(self) -> ModelInfo:
        """Facts of the last successful load. Raises ModelLoading before the first one."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncIterator[EngineEvent]:
        """Submit and yield the request's events: Admitted, TokenDelta…, Finished.

        Raises the refusal instead of the first event, or EngineError when the engine dies later.
        Closing the iterator cancels the request within one step. Never blocks on the engine.
        """
        ...


class EnginePool(Protocol):
    """The models that can be served, by the name clients use."""

    def names(self) -> Sequence[str]: ...

    def get(self, name: str) -> Engine:
        """Raises ModelNotFound for an unknown name. The engine may be loading or restarting."""
        ...


class ModelRunner(Protocol):
    """What computes. One thread calls everything but `tokenize`, which any thread may call."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def memory(self) -> MemoryTraits: ...

    def load(self, config: RunnerConfig) -> None:
        """Blocks for seconds. Raises ModelFileError, OutOfMemory or ConfigError."""
        ...

    def tokenize(self, prompt: Sequence[TextPiece]) -> list[int]: ...

    def check(self, sampling: SamplingParams) -> None:
        """Raises InvalidRequest for a value this vocabulary cannot honour. Any thread."""
        ...

    def open(self, slot: int, sampling: SamplingParams, prompt: list[int]) -> None:
        """Prepare sampling for the sequence that starts in `slot`."""
        ...

    def close(self, slot: int) -> None: ...

    def run(self, plan: BatchPlan) -> StepResult:
        """Blocks for the step. A row that cannot be computed is named in `failed`, alone."""
        ...

    def is_end(self, token: int) -> bool: ...

    def piece(self, token: int) -> bytes:
        """The bytes a token adds to the text; empty for control tokens."""
        ...


class StatsSink(Protocol):
    """Where an engine's numbers go; the API process exports them."""

    def on_step(self, model: str, stats: StepStats) -> None: ...

    def on_load(self, model: str, info: ModelInfo) -> None: ...

    def on_restart(self, model: str, reason: str) -> None: ...
