"""A real server with what is the same in every question to it."""

from __future__ import annotations

from typing import Any, NamedTuple

import openai

from tests.api.streams import Chunk, joined


class Served(NamedTuple):
    client: openai.OpenAI
    model: str

    def _body(self, question: str, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": question}]
        fixed = {"model": self.model, "temperature": 0, "max_tokens": 200}
        return {**fixed, "messages": messages, **more}

    def ask(self, question: str, **more: Any) -> dict[str, Any]:
        """The choice that answers it."""
        answer = self.client.chat.completions.create(**self._body(question, **more))
        choice: dict[str, Any] = answer.choices[0].model_dump(exclude_unset=True)
        return choice

    def chunks(self, question: str, **more: Any) -> list[Chunk]:
        stream = self.client.chat.completions.create(**self._body(question, **more), stream=True)
        return [chunk.model_dump(exclude_unset=True) for chunk in stream]

    def both(self, question: str, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Whole and streamed, on a prompt that is known by then: a batch of another shape, as the
        first one is, may round another way."""
        self.ask(question, **{**more, "max_tokens": 1})
        return self.ask(question, **more), joined(self.chunks(question, **more))
