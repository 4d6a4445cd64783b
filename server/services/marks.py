"""Stand-ins for special spellings in what people wrote, so that text stays text in a prompt."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from server.core.errors import ContextOverflow
from server.core.types import TextPiece

FAR_TOO_MANY = 4
"""Times the context. Each is a token at least, unless the template leaves it out."""

_OPEN, _CLOSE = "\ue000", "\ue001"


class Marks:
    """The stand-ins of one request. They cannot be guessed, so nobody can write one.

    Raises ContextOverflow for more than could ever fit in `context` tokens: each costs a
    microsecond here, and more further on.
    """

    def __init__(self, special_tokens: Iterable[str], context: int) -> None:
        self._context = context
        spellings = "|".join(map(re.escape, special_tokens))
        self._special = re.compile(spellings) if spellings else None
        nonce = secrets.token_hex(8)
        self._form = f"{_OPEN}{nonce}.%d{_CLOSE}"
        # A template may write JSON with escapes for what is not ASCII.
        self._found = re.compile(
            rf"(?:{_OPEN}|\\ue000){nonce}\.(\d+)(?:{_CLOSE}|\\ue001)", re.IGNORECASE
        )
        self._hidden: list[str] = []

    def hide(self, value: Any) -> Any:
        """The value with marks in place of special spellings, deeply, for a template to read."""
        if isinstance(value, str):
            return self._special.sub(self._mark, value) if self._special else value
        if isinstance(value, Mapping):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return value

    def _mark(self, match: re.Match[str]) -> str:
        self._hidden.append(match[0])
        if len(self._hidden) > FAR_TOO_MANY * self._context:
            raise ContextOverflow.of(len(self._hidden), self._context, at_least=True)
        return self._form % (len(self._hidden) - 1)

    def split(self, text: str) -> tuple[TextPiece, ...]:
        """Rendered text in pieces; what was hidden comes out plain."""
        text = text.encode("utf-8", "replace").decode()
        if not self._hidden:
            return (TextPiece(text),)
        pieces = [
            TextPiece(self._hidden[int(part)], plain=True) if i % 2 else TextPiece(part)
            for i, part in enumerate(self._found.split(text))
        ]
        return tuple(piece for piece in pieces if piece.text)
