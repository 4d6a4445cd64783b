"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from server.schemas.completions import CompletionFrames, CompletionRequest, completion_body
from server.schemas.head import AnswerHead
from server.services.completions import Completion

from .auth import require_key
from .body import json_body, note_ignored, openapi_body
from .errors import CLIENT_GONE
from .inside import Inside, admission, begun, unless_gone
from .sse import EventStream, until_done
from .state import state_of
from .summary import summary_of

router = APIRouter()


@router.post("/completions", openapi_extra=openapi_body(CompletionRequest))
async def completions(
    request: Request,
    scope: Annotated[str, Depends(require_key)],
    inside: Annotated[Inside, Depends(admission)],
    body: Annotated[CompletionRequest, Depends(json_body(CompletionRequest))],
) -> Response:
    """Text that continues a prompt, without a chat template."""
    summary = summary_of(request.scope)
    summary.model = body.model or ""
    started = await begun(request, state_of(request).completions.start(body, scope))
    if started is None:
        return Response(status_code=CLIENT_GONE)
    engine, completion = started
    summary.model, summary.work = engine.name, completion.generation
    await inside.keep(completion.generation)
    note_ignored(request, completion.not_enforced)
    head = AnswerHead.new("cmpl-", engine.name, engine.info.fingerprint)
    if await unless_gone(request, completion.admitted()) is None:
        return Response(status_code=CLIENT_GONE)
    if body.stream:
        choices = len(completion.generation.choices)
        frames = CompletionFrames(head, choices, include_usage=body.include_usage)
        stream = until_done(_frames(completion, frames, body.include_usage), summary)
        return EventStream(stream, frames.idle)
    collected = await unless_gone(request, completion.collect())
    if collected is None:
        return Response(status_code=CLIENT_GONE)
    return JSONResponse(completion_body(head, collected, completion.generation.usage()))


async def _frames(
    completion: Completion, frames: CompletionFrames, include_usage: bool
) -> AsyncGenerator[bytes]:
    """All frames a step brought go out in one write."""
    async for pieces in completion:
        yield b"".join(map(frames.piece, pieces))
    if include_usage:
        yield frames.usage(completion.generation.usage())
