"""What every frame of one answer has in common with its whole body."""

from __future__ import annotations

import time
from typing import Any

from msgspec import Struct

from .common import new_id


class AnswerHead(Struct, frozen=True):
    id: str
    created: int
    model: str
    fingerprint: str

    @classmethod
    def new(cls, prefix: str, model: str, fingerprint: str) -> AnswerHead:
        return cls(new_id(prefix), int(time.time()), model, fingerprint)

    def fields(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }
