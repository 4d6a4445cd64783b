"""How long a request's model stays in memory after it: Ollama's `keep_alive`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from server.core.durations import seconds_of

from .common import RequestBody


def _duration(value: Any) -> Any:
    try:
        seconds_of(value)
    except ValueError:
        raise ValueError('expected seconds, or a text such as "5m" or "1h30m"') from None
    return value


class KeepFields(RequestBody):
    keep_alive: Annotated[int | float | str, AfterValidator(_duration)] | None = None
    """Seconds, or a text such as `"5m"`; below 0 as long as memory allows, 0 until the answer ends.
    Absent: what the server is set to."""

    def keep(self) -> float | None:
        """In seconds."""
        return None if self.keep_alive is None else seconds_of(self.keep_alive)
