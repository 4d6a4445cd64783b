"""POST /tokenize, /detokenize and /apply-template: what a model reads, without generating."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from server.schemas.chat import TemplateRequest
from server.schemas.tokens import (
    DetokenizeRequest,
    TokenizeRequest,
    content_body,
    tokens_body,
)

from .auth import require_key
from .body import json_body, openapi_body
from .inside import Inside, admission
from .state import state_of

router = APIRouter(dependencies=[Depends(require_key)])

Admitted = Annotated[Inside, Depends(admission)]


@router.post("/tokenize", openapi_extra=openapi_body(TokenizeRequest))
async def tokenize(
    request: Request,
    _: Admitted,
    body: Annotated[TokenizeRequest, Depends(json_body(TokenizeRequest))],
) -> dict[str, Any]:
    """The tokens of a text."""
    tokenized = await state_of(request).tokens.tokenize(body)
    return tokens_body(tokenized, with_pieces=bool(body.with_pieces))


@router.post("/detokenize", openapi_extra=openapi_body(DetokenizeRequest))
async def detokenize(
    request: Request,
    _: Admitted,
    body: Annotated[DetokenizeRequest, Depends(json_body(DetokenizeRequest))],
) -> dict[str, str]:
    """The text of tokens."""
    return content_body(await state_of(request).tokens.detokenize(body))


@router.post("/apply-template", openapi_extra=openapi_body(TemplateRequest))
async def apply_template(
    request: Request,
    _: Admitted,
    body: Annotated[TemplateRequest, Depends(json_body(TemplateRequest))],
) -> dict[str, str]:
    """The prompt that a chat request would be answered to."""
    return {"prompt": await state_of(request).chat.prompt(body)}
