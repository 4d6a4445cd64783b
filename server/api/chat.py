"""POST /v1/chat/completions."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from server.core.errors import IngleError
from server.core.types import Finished
from server.schemas.chat import ChatFrames, ChatHead, ChatRequest, chat_body
from server.schemas.errors import error_frame
from server.services.chat import collect
from server.services.generation import Generation

from .auth import require_key
from .body import json_body, openapi_body
from .errors import CLIENT_GONE, body_of
from .inside import admission, unless_gone
from .sse import DONE, EventStream
from .state import state_of

log = logging.getLogger("ingle.api")
router = APIRouter()


@router.post("/chat/completions", openapi_extra=openapi_body(ChatRequest))
async def chat_completions(
    request: Request,
    scope: Annotated[str, Depends(require_key)],
    inside: Annotated[AsyncExitStack, Depends(admission)],
    body: Annotated[ChatRequest, Depends(json_body(ChatRequest))],
) -> Response:
    """Chat, streaming or not."""
    request.scope["ingle.model"] = body.model or ""
    engine, generation = await state_of(request).chat.start(body, scope)
    request.scope["ingle.model"] = engine.name
    await inside.enter_async_context(generation)
    head = ChatHead.new(engine.name, engine.info.fingerprint)
    if await unless_gone(request, generation.admitted()) is None:
        return Response(status_code=CLIENT_GONE)
    if body.stream:
        return EventStream(_frames(generation, head, body))
    choices = await unless_gone(request, collect(generation))
    if choices is None:
        return Response(status_code=CLIENT_GONE)
    return JSONResponse(chat_body(head, choices))


async def _frames(
    generation: Generation, head: ChatHead, body: ChatRequest
) -> AsyncGenerator[bytes]:
    """All frames a step brought go out in one write."""
    frames = ChatFrames(head, include_usage=body.include_usage)
    yield b"".join(frames.role(index) for index in generation.choices.values())
    try:
        async for events in generation:
            ready = b""
            for event in events:
                index = generation.choices[event.id]
                if isinstance(event, Finished):
                    ready += frames.finish(index, event.reason)
                elif event.text:
                    ready += frames.content(index, event.text)
            if ready:
                yield ready
    except IngleError as error:
        log.warning("a stream ended with an error: %s", error.message)
        yield error_frame(body_of(error)) + DONE
        return
    except Exception as error:
        log.exception("a bug while streaming")
        yield error_frame(body_of(error)) + DONE
        return
    yield (frames.usage(generation.usages()) if body.include_usage else b"") + DONE
