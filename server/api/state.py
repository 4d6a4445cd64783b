"""What routes need, put on the app once by the composition root."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from fastapi import Request
from msgspec import Struct

from server.services.admission import Admission
from server.services.chat import ChatService
from server.services.completions import CompletionService
from server.services.embeddings import EmbeddingService
from server.services.models import NamedModels
from server.services.tokens import TokenService

from .keys import ApiKeys


class Rules(Struct):
    """For bodies; may change while the server runs."""

    max_body_bytes: int
    strict_params: bool


class ApiState(Struct, frozen=True):
    models: NamedModels
    chat: ChatService
    completions: CompletionService
    tokens: TokenService
    embeddings: EmbeddingService
    admission: Admission
    ready: Callable[[], bool]
    started: int
    rules: Rules
    large_body: asyncio.Lock
    keys: ApiKeys


def state_of(request: Request) -> ApiState:
    return cast(ApiState, request.app.state.ingle)
