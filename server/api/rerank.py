"""POST /v1/rerank, under the names that llama-server has for it too."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from server.schemas.rerank import RerankRequest, rerank_body

from .auth import require_key
from .body import json_body, openapi_body
from .errors import CLIENT_GONE
from .inside import Inside, admission, begun, unless_gone
from .state import state_of
from .summary import summary_of

router = APIRouter()


@router.post("/rerank", openapi_extra=openapi_body(RerankRequest))
@router.post("/reranking", include_in_schema=False)
async def rerank(
    request: Request,
    scope: Annotated[str, Depends(require_key)],
    inside: Annotated[Inside, Depends(admission)],
    body: Annotated[RerankRequest, Depends(json_body(RerankRequest))],
) -> Response:
    """Documents by how well they answer a query, best first, with scores from 0 to 1."""
    summary = summary_of(request.scope)
    summary.model = body.model or ""
    run = await begun(request, state_of(request).embeddings.rank(body, scope))
    if run is None:
        return Response(status_code=CLIENT_GONE)
    summary.model, summary.work = run.model, run
    await inside.keep(run)
    scores = await unless_gone(request, run.collect())
    if scores is None:
        return Response(status_code=CLIENT_GONE)
    return JSONResponse(rerank_body(run.model, body, b"".join(scores), run.prompt_tokens))
