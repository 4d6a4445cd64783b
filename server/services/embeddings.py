"""Embeddings and reranking: a request to vectors, with every check that needs no engine."""

from __future__ import annotations

from server.core.errors import InvalidRequest
from server.core.protocol import EnginePool
from server.core.stats import StatsSink
from server.core.types import ModelInfo
from server.schemas.embeddings import EmbeddingsRequest
from server.schemas.rerank import RerankRequest

from .models import find_engine
from .vectors import Vectors


class EmbeddingService:
    def __init__(self, pool: EnginePool, stats: StatsSink) -> None:
        self._pool = pool
        self._stats = stats

    async def embed(self, request: EmbeddingsRequest, scope: str) -> Vectors:
        engine = await find_engine(self._pool, request.model, "embed")
        request.check_refused()
        _check_dimensions(request.dimensions, engine.name, engine.info)
        request.input.check_tokens(engine.info.vocabulary)
        return Vectors(engine, request.to_engine(scope), self._stats)

    async def rank(self, request: RerankRequest, scope: str) -> Vectors:
        engine = await find_engine(self._pool, request.model, "rerank")
        request.check_refused()
        return Vectors(engine, request.to_engine(scope), self._stats)


def _check_dimensions(dimensions: int | None, name: str, info: ModelInfo) -> None:
    native = info.embedding_size
    if dimensions is None or dimensions == native:
        return
    if dimensions > native:
        raise InvalidRequest(
            f"Invalid 'dimensions': integer above maximum value. Expected a value <= {native},"
            f" but got {dimensions} instead.",
            param="dimensions",
            code="integer_above_max_value",
        )
    if not info.matryoshka:
        raise InvalidRequest(
            f"Unsupported value: 'dimensions' of {dimensions} is not supported with {name}: it was"
            f" not trained for shorter vectors. Its vectors have {native}; leave 'dimensions' out.",
            param="dimensions",
            code="unsupported_value",
        )
