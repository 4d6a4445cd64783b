"""Chat templates as Hugging Face's are written, rendered so that user text stays text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from server.core.errors import TemplateError
from server.core.types import ModelInfo

from .marks import Marks

Message = Mapping[str, Any]
Render = Callable[[str, Mapping[str, Any]], str]
"""The text of a template's source with these variables, which are JSON. Raises TemplateError."""


class ChatTemplate:
    """A model's own template. Raises TemplateError for what it refuses to render.

    Where a message spells a special token, a private mark stands in its place while the template
    renders, and comes out as a plain piece: `<|im_end|>` typed by a user never ends a turn.
    """

    def __init__(self, source: str, info: ModelInfo, render: Render) -> None:
        self.source = source
        self._render = render
        self._knows_developer = "developer" in source
        self._constants = {"bos_token": info.bos_token, "eos_token": info.eos_token}
        self._special_tokens = info.special_tokens
        self._context = info.context

    def marks(self) -> Marks:
        return Marks(self._special_tokens, self._context)

    def known_role(self, message: Message) -> Message:
        if message["role"] == "developer" and not self._knows_developer:
            return {**message, "role": "system"}
        return message

    def text(self, turns: Sequence[Message], variables: Mapping[str, Any]) -> str:
        """The text for turns that hold marks; system turns are merged where they must be."""
        try:
            return self.exact_text(turns, variables)
        except TemplateError:
            merged = one_system_turn(turns)
            if merged == turns:
                raise
            return self.exact_text(merged, variables)

    def exact_text(self, turns: Sequence[Message], variables: Mapping[str, Any]) -> str:
        """The text for the turns as they are; `variables` are the template's."""
        given = {**self._constants, **variables, "messages": list(turns)}
        return self._render(self.source, given)


def one_system_turn(turns: Sequence[Message]) -> list[Message]:
    """All system turns as one leading one, for templates that take it nowhere else."""
    system = [turn["content"] or "" for turn in turns if turn["role"] == "system"]
    rest = [turn for turn in turns if turn["role"] != "system"]
    if not system or not all(isinstance(content, str) for content in system):
        return list(turns)
    return [{"role": "system", "content": "\n\n".join(system)}, *rest]
