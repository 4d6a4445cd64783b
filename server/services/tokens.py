"""Text to a model's tokens and back."""

from __future__ import annotations

from server.core.protocol import EnginePool
from server.core.types import TextPiece, Tokenized
from server.schemas.tokens import DetokenizeRequest, TokenizeRequest

from .models import find_any


class TokenService:
    def __init__(self, pool: EnginePool) -> None:
        self._pool = pool

    async def tokenize(self, request: TokenizeRequest) -> Tokenized:
        engine = await find_any(self._pool, request.model)
        text = TextPiece(request.content, plain=request.parse_special is False)
        return await engine.tokenize((text,), begin=bool(request.add_special))

    async def detokenize(self, request: DetokenizeRequest) -> Tokenized:
        engine = await find_any(self._pool, request.model)
        return await engine.detokenize(tuple(request.tokens))
