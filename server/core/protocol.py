"""The borders: what services see of an engine, what the engine loop sees of a runner."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from .config import ModelFacts, RunnerConfig
from .plan import BatchPlan, EmbedResult, MemoryTraits, StepResult
from .types import (
    EmbedRequest,
    EngineEvent,
    GenerateRequest,
    ModelInfo,
    ModelKind,
    SamplingParams,
    TextPiece,
    Tokenized,
)

Compiled = Any
"""A compiled grammar: whatever the runner that made it understands."""


class Engine(Protocol):
    """One model, seen from the API process. What needs it in memory waits until it is."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> ModelKind: ...

    @property
    def facts(self) -> ModelFacts:
        """What its file says of it."""
        ...

    @property
    def loaded(self) -> ModelInfo | None:
        """Facts of the last successful load, if there was one."""
        ...

    async def load(self) -> None:
        """Returns once it is in memory. Raises ModelLoading, EngineDown or ShuttingDown."""
        ...

    @property
    def info(self) -> ModelInfo:
        """Facts of the last successful load. Raises ModelLoading before the first one."""
        ...

    def generate(self, *requests: GenerateRequest) -> AsyncGenerator[list[EngineEvent]]:
        """Submit, then yield what arrived since the last time: Admitted, TokenDelta…, Finished.

        Ends after the last Finished. Raises the error of the first request that fails: a refusal
        before its Admitted, EngineError when the engine dies. Closing the generator cancels what
        still runs, within one step. Never blocks on the engine.
        """
        ...

    async def tokenize(self, text: tuple[TextPiece, ...], *, begin: bool = False) -> Tokenized:
        """`begin`: with the token first that the model wants before any text. Waits for no slot.

        Raises ModelLoading or EngineError.
        """
        ...

    async def detokenize(self, tokens: tuple[int, ...]) -> Tokenized:
        """Raises InvalidRequest for ids outside the vocabulary, ModelLoading, EngineError."""
        ...

    def embed(self, request: EmbedRequest) -> AsyncGenerator[list[EngineEvent]]:
        """As `generate`: Admitted, Embedded…, Finished."""
        ...


class EnginePool(Protocol):
    """The models that can be served, by the name clients use."""

    def names(self) -> Sequence[str]: ...

    def __contains__(self, name: object) -> bool: ...

    def get(self, name: str, kind: ModelKind = "generate") -> Engine:
        """Raises ModelNotFound for an unknown name. The engine may be loading or restarting.

        `kind` is what is wanted of it, where a name leaves that open.
        """
        ...


class ModelRunner(Protocol):
    """What computes. One thread calls everything that is not said to be for any thread."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def memory(self) -> MemoryTraits: ...

    def load(self, config: RunnerConfig) -> None:
        """Blocks for seconds. Raises ModelFileError, OutOfMemory or ConfigError."""
        ...

    def tokenize(self, prompt: Sequence[TextPiece], *, begin: bool = True) -> list[int]:
        """`begin`: with the token first that the model wants before any text. Any thread."""
        ...

    def fewest_tokens(self, prompt: Sequence[TextPiece]) -> int:
        """A lower bound of the tokens of `prompt`, without tokenising it. Any thread."""
        ...

    def check(self, sampling: SamplingParams) -> None:
        """Raises InvalidRequest for a value this vocabulary cannot honour. Any thread."""
        ...

    def compile(self, grammar: str) -> Compiled:
        """Raises InvalidRequest. Blocks for milliseconds, at most 1.5 s. Any thread."""
        ...

    def compiled(self, grammar: str) -> Compiled | None:
        """What `compile` made of it, while that is remembered. Any thread."""
        ...

    def open(
        self, slot: int, request: GenerateRequest, prompt: list[int], grammar: Compiled | None
    ) -> None:
        """Prepare sampling for the sequence that starts in `slot`. `grammar` is the request's."""
        ...

    def close(self, slot: int) -> None: ...

    def run(self, plan: BatchPlan) -> StepResult:
        """Blocks for the step. A row that cannot be computed is named in `failed`, alone."""
        ...

    def state_of(self, slot: int) -> memoryview | None:
        """The state of a slot, for `keep` of another process; None where it cannot be had."""
        ...

    def kept(self, key: int) -> memoryview | None:
        """The state that was saved under the key."""
        ...

    def keep(self, key: int, state: memoryview) -> None:
        """As if it had been saved under the key. What is no state of this model may end it all."""
        ...

    def forget(self, key: int) -> None: ...

    def is_end(self, token: int) -> bool: ...

    def piece(self, token: int) -> bytes:
        """The bytes a token adds to the text; empty for control tokens."""
        ...

    def spelling(self, token: int) -> bytes:
        """The bytes a token is written with, control tokens too. Any thread."""
        ...


class EmbedRunner(Protocol):
    """What computes vectors or scores. One thread calls `load` and `run`; any calls the rest."""

    @property
    def info(self) -> ModelInfo:
        """Its `context` is the longest input, its `slots` the most inputs of a batch."""
        ...

    def load(self, config: RunnerConfig) -> None:
        """Blocks for seconds. Raises ModelFileError, OutOfMemory or ConfigError."""
        ...

    def fewest_tokens(self, text: str) -> int:
        """About the fewest tokens `text` can have, without tokenising it."""
        ...

    def tokenize(self, text: Sequence[TextPiece], *, begin: bool = True) -> list[int]:
        """`begin`: with the tokens the model wants before a text and after it."""
        ...

    def tokenize_pair(self, query: str, document: str) -> list[int]:
        """Special spellings are plain text."""
        ...

    def spelling(self, token: int) -> bytes:
        """The bytes a token is written with, control tokens too."""
        ...

    def run(self, batch: Sequence[Sequence[int]]) -> EmbedResult:
        """Blocks for the batch. An input that cannot be computed fails alone."""
        ...
