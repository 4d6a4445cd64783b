"""The requests that have a place, for those who look after the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import Scope

from server.core.errors import IngleError, RequestCancelled
from server.services.place import Place

from .summary import summary_of

PLACE = "ingle.place"
"""Where a request's place stands in its scope."""
REQUEST_ID = "ingle.request_id"
"""The same of its id."""


class InFlight:
    """By an id that is the request's own `x-request-id`; two may carry the same one."""

    def __init__(self) -> None:
        self._requests: dict[int, _Request] = {}
        self._count = 0

    @contextmanager
    def held(self, scope: Scope, place: Place) -> Iterator[None]:
        """One more, while this lasts."""
        self._count += 1
        number = self._count
        self._requests[number] = _Request(scope, place)
        try:
            yield
        finally:
            del self._requests[number]

    def listed(self) -> list[dict[str, Any]]:
        """As `GET /admin/requests` shows them, the oldest first; nothing of what users write."""
        now = time.monotonic()
        return [request.told(now) for request in self._requests.values()]

    def end_unread(self, error: IngleError) -> None:
        """Those whose bodies are still coming: nobody can say when they would be done."""
        for request in self._requests.values():
            if not request.place.has_body:
                request.place.cancel(error)

    def cancel(self, request_id: str) -> int:
        """End those with this id. Returns how many there were."""
        found = [one for one in self._requests.values() if one.id == request_id]
        for request in found:
            request.place.cancel(RequestCancelled("The server's administrator ended this request."))
        return len(found)


class _Request:
    def __init__(self, scope: Scope, place: Place) -> None:
        client = scope.get("client")
        self.id: str = scope.get(REQUEST_ID, "")
        self.place = place
        self._path = scope["path"]
        self._client = client[0] if client else ""
        self._summary = summary_of(scope)
        self._since = time.monotonic()

    def told(self, now: float) -> dict[str, Any]:
        place = self.place
        return {
            "id": self.id,
            "model": self._summary.model or None,
            "path": self._path,
            "status": place.phase,
            "seconds": round(now - self._since, 3),
            "prompt_tokens": place.prompt_tokens,
            "completion_tokens": place.generated,
            "client": self._client,
        }
