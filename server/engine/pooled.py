"""One model of a pool, as services see it: in memory or not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing

from server.core.config import ModelFacts, PoolModel
from server.core.errors import ModelLoading
from server.core.types import (
    EmbedRequest,
    EngineEvent,
    GenerateRequest,
    ModelInfo,
    ModelKind,
    TextPiece,
    Tokenized,
)

from .replicas import Replicas

Use = Callable[["PooledEngine", float | None], AbstractAsyncContextManager[Replicas]]


class PooledEngine:
    """An `Engine` whose users wait until it is in memory. What it reported last stays known."""

    def __init__(self, name: str, model: PoolModel, use: Use) -> None:
        self._name = name
        self._use = use
        self._info: ModelInfo | None = None
        self.model = model
        self.replicas: Replicas | None = None
        self.changed = False
        """It is to be loaded otherwise than it is."""
        self.proven: PoolModel | None = None
        """As it was loaded before, while it is not known whether it can be loaded as it is now."""
        self.why = ""
        """Its last load failed, for clients."""

    @property
    def name(self) -> str:
        return self._name

    @property
    def kind(self) -> ModelKind:
        return self.model.facts.kind

    @property
    def facts(self) -> ModelFacts:
        return self.model.facts

    @property
    def loaded(self) -> ModelInfo | None:
        """Of the last load, if there was one."""
        if self.replicas is not None and self.replicas.loaded is not None:
            self._info = self.replicas.loaded
        return self._info

    @property
    def info(self) -> ModelInfo:
        info = self.loaded
        if info is None:
            raise ModelLoading(f"The model {self._name} is not loaded yet; try again shortly.")
        return info

    async def load(self, keep: float | None = None) -> None:
        async with self._use(self, keep):
            pass

    def generate(self, *requests: GenerateRequest) -> AsyncGenerator[list[EngineEvent]]:
        return self._generate(requests)

    async def _generate(
        self, requests: tuple[GenerateRequest, ...]
    ) -> AsyncGenerator[list[EngineEvent]]:
        async with self._use(self, requests[0].keep) as replicas:
            with replicas.one(requests[0]) as process:
                async with aclosing(process.generate(*requests)) as answered:
                    async for events in answered:
                        yield events

    async def embed(self, request: EmbedRequest) -> AsyncGenerator[list[EngineEvent]]:
        async with self._use(self, request.keep) as replicas:
            with replicas.one(request) as process:
                async with aclosing(process.embed(request)) as answered:
                    async for events in answered:
                        yield events

    async def tokenize(self, text: tuple[TextPiece, ...], *, begin: bool = False) -> Tokenized:
        async with self._use(self, None) as replicas:
            with replicas.one() as process:
                return await process.tokenize(text, begin=begin)

    async def detokenize(self, tokens: tuple[int, ...]) -> Tokenized:
        async with self._use(self, None) as replicas:
            with replicas.one() as process:
                return await process.detokenize(tokens)
