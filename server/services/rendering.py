"""Chat templates rendered in processes that are ended when they take too much.

A template comes with the model's file, and a conversation from whoever asks: neither may take the
time or the memory of the API process.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from server.core.child import Child
from server.core.errors import Overloaded, TemplateError, TemplateTooSlow

from . import sandbox
from .apart import PATIENCE, is_long

LETTERS = 4096
"""Characters that count as one more message: templates walk over messages, not over their text."""


class Renderers:
    """Two processes a template, the second for long conversations, so that none of those holds up a
    short one; started when they are needed. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, bool], _Lane] = {}
        self._lock = threading.Lock()

    def render(self, source: str, given: Mapping[str, Any]) -> str:
        """Blocks for a millisecond, at most for 1.7 s. Raises TemplateError, TemplateTooSlow,
        Overloaded."""
        question = json.dumps([source, given], ensure_ascii=False)
        lane = self._lane(source, long=is_long(*given.values(), letters=LETTERS))
        answer = lane.ask(question.encode("utf-8", "surrogatepass"))
        if answer is None:
            raise TemplateTooSlow(
                "The model's chat template takes too much time or memory for these messages.",
                param="messages",
            )
        return _read(answer)

    def close(self) -> None:
        with self._lock:
            for lane in self._lanes.values():
                lane.close()

    def _lane(self, source: str, *, long: bool) -> _Lane:
        with self._lock:
            return self._lanes.setdefault((source, long), _Lane())


class _Lane:
    def __init__(self) -> None:
        self._child = Child(sandbox.__name__)
        self._free = threading.Lock()
        self.close = self._child.close

    def ask(self, question: bytes) -> bytes | None:
        if not self._free.acquire(timeout=PATIENCE):
            raise Overloaded("The server is busy reading conversations. Please try again shortly.")
        try:
            return self._child.ask(question, sandbox.SECONDS)
        finally:
            self._free.release()


def _read(answer: bytes) -> str:
    kind, content = answer[:1], answer[1:].decode()
    if kind == sandbox.TEXT:
        return content
    if kind == sandbox.WRONG:
        param, _, message = content.partition("\n")
        raise TemplateError(message, param=param)
    raise RuntimeError(f"a template could not be rendered: {content}")
