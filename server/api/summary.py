"""One log line a request, whatever its end."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Container, MutableMapping
from typing import Any, Protocol

from msgspec import Struct

from server.core.stats import RequestRecord

log = logging.getLogger("ingle.request")

_SUMMARY = "ingle.summary"
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_WATCHING = frozenset(
    ("/livez", "/readyz", "/health", "/v1/health", "/metrics", "/admin/requests", "/admin/models")
) | {"/web/{name:path}"}
"""Routes that are asked again and again by who watches the server, and the page's own files."""
_LONGEST_PROMPT = 2000
_RECENT = 100


class Work(Protocol):
    """What a request had computed."""

    record: RequestRecord | None
    """Once it ended; None when it never began."""

    def prompt(self) -> str: ...


class Summary(Struct):
    """Filled by whoever answers the request. `model` as the client called it until it is found."""

    model: str = ""
    work: Work | None = None
    error: str = ""
    client_gone: bool = False


def summary_of(scope: MutableMapping[str, Any]) -> Summary:
    """The one that belongs to a request; scopes are copied on their way, it is not."""
    summary: Summary = scope.setdefault(_SUMMARY, Summary())
    return summary


class Summaries:
    """Writes them, and keeps the last ones that asked for a model. `models` are the names that may
    stand in a log."""

    def __init__(self, models: Container[str], *, prompts: bool) -> None:
        self._models = models
        self._prompts = prompts
        self._recent: deque[dict[str, Any]] = deque(maxlen=_RECENT)

    def recent(self) -> list[dict[str, Any]]:
        """What the log says of them, the last one first. `ended` is in seconds since 1970."""
        return list(reversed(self._recent))

    def tell(
        self,
        summary: Summary,
        request_id: str,
        method: str,
        route: str,
        status: int,
        seconds: float,
    ) -> None:
        """`status` is 0 when there was no answer."""
        level = logging.DEBUG if route in _WATCHING else logging.INFO
        if not (summary.model or log.isEnabledFor(level)):
            return
        fields = {
            "id": request_id,
            "method": method if method in _METHODS else "other",
            "route": route,
            "status": status or None,
            "model": self._model(summary.model),
            **_figures(summary.work.record if summary.work else None),
            "error": summary.error or None,
            "client_gone": summary.client_gone or None,
            "duration_ms": _ms(seconds),
        }
        told = {name: value for name, value in fields.items() if value is not None}
        if summary.model:
            self._recent.append({**told, "ended": round(time.time(), 3)})
        if self._prompts and summary.work:
            told["prompt"] = summary.work.prompt()[:_LONGEST_PROMPT]
        if log.isEnabledFor(level):
            log.log(level, "request", extra=told)

    def _model(self, name: str) -> str | None:
        return (name if name in self._models else "other") if name else None


def _figures(record: RequestRecord | None) -> dict[str, Any]:
    if record is None:
        return {}
    return {
        "queue_ms": _ms(record.queue_seconds),
        "ttft_ms": _ms(record.first_token_seconds),
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "completion_tokens": record.completion_tokens,
        "tokens_per_second": _rate(record),
        "finish": record.outcome,
    }


def _rate(record: RequestRecord) -> float | None:
    """Of the tokens after the first ones."""
    if record.first_token_seconds is None or record.completion_tokens < 2:
        return None
    seconds = record.total_seconds - record.first_token_seconds
    return round((record.completion_tokens - 1) / seconds, 1) if seconds > 0 else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
