"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from server.schemas.chat import ChatRequest
from server.schemas.chat_answer import chat_body
from server.schemas.chat_frames import ChatFrames
from server.schemas.head import AnswerHead
from server.services.chat import ChatAnswer, End, collect

from .auth import require_key
from .body import json_body, note_ignored, openapi_body
from .errors import CLIENT_GONE
from .inside import Inside, admission, begun, unless_gone
from .sse import EventStream, until_done
from .state import state_of
from .summary import summary_of

router = APIRouter()


@router.post("/chat/completions", openapi_extra=openapi_body(ChatRequest))
async def chat_completions(
    request: Request,
    scope: Annotated[str, Depends(require_key)],
    inside: Annotated[Inside, Depends(admission)],
    body: Annotated[ChatRequest, Depends(json_body(ChatRequest))],
) -> Response:
    """Chat, streaming or not."""
    summary = summary_of(request.scope)
    summary.model = body.model or ""
    started = await begun(request, state_of(request).chat.start(body, scope))
    if started is None:
        return Response(status_code=CLIENT_GONE)
    engine, answer = started
    summary.model, summary.work = engine.name, answer.generation
    await inside.keep(answer.generation)
    note_ignored(request, answer.not_enforced)
    head = AnswerHead.new("chatcmpl-", engine.name, engine.info.fingerprint)
    shape, choices = body.shape(), body.n or 1
    if await unless_gone(request, answer.admitted()) is None:
        return Response(status_code=CLIENT_GONE)
    if body.stream:
        frames = ChatFrames(head, shape, choices)
        return EventStream(until_done(_frames(answer, frames, choices), summary), frames.idle)
    collected = await unless_gone(request, collect(answer, choices))
    if collected is None:
        return Response(status_code=CLIENT_GONE)
    return JSONResponse(chat_body(head, collected, shape))


async def _frames(answer: ChatAnswer, frames: ChatFrames, choices: int) -> AsyncGenerator[bytes]:
    """All frames a step brought go out in one write."""
    yield b"".join(frames.role(index) for index in range(choices))
    async for heard in answer:
        yield b"".join(
            frames.finish(said.index, said.ended)
            if isinstance(said, End)
            else frames.part(said.index, said.part, said.scores)
            for said in heard
        )
    yield frames.usage(answer.usages(), answer.reasoning_tokens())
