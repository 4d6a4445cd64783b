"""What routes need, put on the app once by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from fastapi import Request
from msgspec import Struct

from server.core.protocol import EnginePool
from server.services.admission import Admission
from server.services.chat import ChatService
from server.services.embeddings import EmbeddingService


class ApiState(Struct, frozen=True):
    pool: EnginePool
    chat: ChatService
    embeddings: EmbeddingService
    admission: Admission
    ready: Callable[[], bool]
    started: int
    max_body_bytes: int
    api_keys: tuple[str, ...] = ()


def state_of(request: Request) -> ApiState:
    return cast(ApiState, request.app.state.ingle)
