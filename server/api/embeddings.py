"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from server.schemas.embeddings import EmbeddingsRequest, embeddings_body

from .auth import require_key
from .body import json_body, openapi_body
from .errors import CLIENT_GONE
from .inside import Inside, admission, begun, unless_gone
from .state import state_of
from .summary import summary_of

router = APIRouter()

ON_LOOP_VECTORS = 8
"""More than so many are written in a thread: everybody's stream waits for the event loop."""


@router.post("/embeddings", openapi_extra=openapi_body(EmbeddingsRequest))
async def embeddings(
    request: Request,
    scope: Annotated[str, Depends(require_key)],
    inside: Annotated[Inside, Depends(admission)],
    body: Annotated[EmbeddingsRequest, Depends(json_body(EmbeddingsRequest))],
) -> Response:
    """Texts, or token ids, to vectors of length 1."""
    summary = summary_of(request.scope)
    summary.model = body.model or ""
    run = await begun(request, state_of(request).embeddings.embed(body, scope))
    if run is None:
        return Response(status_code=CLIENT_GONE)
    summary.model, summary.work = run.model, run
    await inside.keep(run)
    vectors = await unless_gone(request, run.collect())
    if vectors is None:
        return Response(status_code=CLIENT_GONE)
    answer = (run.model, vectors, run.prompt_tokens, body.encoding_format or "float")
    if len(vectors) > ON_LOOP_VECTORS:
        content = await asyncio.to_thread(embeddings_body, *answer)
    else:
        content = embeddings_body(*answer)
    return Response(content, media_type="application/json")
