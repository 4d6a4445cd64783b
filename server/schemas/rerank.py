"""/v1/rerank on the wire, in the shape that Jina and Cohere share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from server.core.types import EmbedRequest

from .common import Refused, new_id
from .embeddings import floats, usage_of
from .keeping import KeepFields

MAX_DOCUMENTS = 2048


def _as_object(value: Any) -> Any:
    return {"text": value} if isinstance(value, str) else value


class Document(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    text: str


_Document = Annotated[Document, BeforeValidator(_as_object, json_schema_input_type=str | Document)]


class RerankRequest(KeepFields):
    refused: ClassVar[dict[str, Refused]] = {
        "rank_fields": Refused("Send documents as strings.", ([], ["text"]))
    }

    model: str | None = None
    query: str = Field(min_length=1)
    documents: Annotated[
        list[_Document], Field(fail_fast=True, min_length=1, max_length=MAX_DOCUMENTS)
    ]
    """At most 2048 strings or objects with `text`; none is cut to fit the context."""
    top_n: int | None = Field(None, ge=1)
    """Absent, or more than there are documents: all."""
    return_documents: bool | None = None
    """Absent: false."""

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(document.text for document in self.documents)

    def to_engine(self, scope: str) -> EmbedRequest:
        return EmbedRequest(
            new_id("rank-"),
            self.texts,
            query=self.query,
            field="documents",
            scope=scope,
            keep=self.keep(),
        )


def rerank_body(
    model: str, request: RerankRequest, scores: bytes, prompt_tokens: int
) -> dict[str, Any]:
    """Best first; documents of equal score in their own order."""
    ranked = sorted(enumerate(floats(scores)), key=lambda pair: -pair[1])[: request.top_n]
    texts = request.texts
    results: list[dict[str, Any]] = []
    for index, score in ranked:
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if request.return_documents:
            result["document"] = {"text": texts[index]}
        results.append(result)
    return {
        "id": new_id("rerank-"),
        "object": "list",
        "model": model,
        "results": results,
        "usage": usage_of(prompt_tokens),
    }
