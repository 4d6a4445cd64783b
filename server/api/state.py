"""What routes need, put on the app once by the composition root."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

from fastapi import Request
from msgspec import Struct

from server.engine.pool import ModelPool
from server.services.admission import Admission
from server.services.chat import ChatService
from server.services.completions import CompletionService
from server.services.embeddings import EmbeddingService
from server.services.models import NamedModels
from server.services.tokens import TokenService

from .in_flight import InFlight
from .keys import ApiKeys


class Rules(Struct):
    """For bodies; may change while the server runs."""

    max_body_bytes: int
    strict_params: bool


class Administration(Struct):
    """What who looks after the server sees and does. `keys` are the admin's, if there is one.

    `reload` is there once the server is ready; it raises StartupError. `pull` gives frames,
    `recent` the requests that ended, the last one first.
    """

    pool: ModelPool
    in_flight: InFlight
    keys: ApiKeys
    pull: Callable[[str], AsyncGenerator[bytes]]
    recent: Callable[[], list[dict[str, Any]]]
    reload: Callable[[], Awaitable[dict[str, Any]]] | None = None


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
    admin: Administration


def state_of(request: Request) -> ApiState:
    return cast(ApiState, request.app.state.ingle)
