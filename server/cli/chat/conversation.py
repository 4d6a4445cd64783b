"""What was said so far, and the next answer to it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.core.errors import ConfigError

if TYPE_CHECKING:
    from server.cli.remote import Remote

PARAMETERS: dict[str, type[int] | type[float]] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "repeat_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "max_tokens": int,
    "seed": int,
}
"""What `/set` knows, by the names of the API."""

OnPiece = Callable[[str, bool], None]
"""Called with each piece of an answer, and whether the model is thinking."""


@dataclass
class Answer:
    """`first` and `seconds` are from the question on; `tokens` as the server counts them."""

    text: str = ""
    reasoning: str = ""
    tokens: int | None = None
    first: float | None = None
    seconds: float = 0.0
    stopped: bool = False
    reason: str = ""

    @property
    def rate(self) -> float | None:
        """Tokens a second after the first one."""
        if self.tokens is None or self.first is None or self.tokens < 2:
            return None
        after = self.seconds - self.first
        return (self.tokens - 1) / after if after > 0 else None


@dataclass
class Conversation:
    model: str
    system: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)

    def set(self, name: str, value: str) -> None:
        """Raises ConfigError; the server checks what the value may be."""
        kind = PARAMETERS.get(name)
        if kind is None:
            raise ConfigError(f"there is no {name}; choose from {', '.join(PARAMETERS)}")
        if value in ("", "default"):
            self.parameters.pop(name, None)
            return
        try:
            self.parameters[name] = kind(value)
        except ValueError:
            raise ConfigError(f"{name} is a number, not {value}") from None

    def body(self) -> dict[str, Any]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return {"model": self.model, "messages": [*system, *self.messages], **self.parameters}

    def ask(self, server: Remote, question: str, on_piece: OnPiece) -> Answer:
        """Both are part of the conversation once the answer ends, or is stopped by Ctrl-C.

        Raises what `Remote.events` raises; then nothing was said.
        """
        self.messages.append({"role": "user", "content": question})
        body = {**self.body(), "stream": True, "stream_options": {"include_usage": True}}
        answer, begun = Answer(), time.monotonic()
        try:
            for event in server.events("/v1/chat/completions", body):
                _hear(event, answer, on_piece, begun)
        except KeyboardInterrupt:
            answer.stopped = True
        except BaseException:
            self.messages.pop()
            raise
        answer.seconds = time.monotonic() - begun
        self.messages.append({"role": "assistant", "content": answer.text})
        return answer

    def retract(self) -> str | None:
        """Take back the last question and its answer; the question."""
        while self.messages and self.messages[-1]["role"] != "user":
            self.messages.pop()
        return self.messages.pop()["content"] if self.messages else None

    def save(self, path: Path) -> None:
        """Raises ConfigError."""
        told = {"model": self.model, "system": self.system, "messages": self.messages}
        try:
            path.expanduser().write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from None

    def restore(self, path: Path) -> None:
        """What `save` wrote. Raises ConfigError."""
        try:
            told = json.loads(path.expanduser().read_text())
            messages = [
                {"role": str(one["role"]), "content": str(one["content"])}
                for one in told["messages"]
            ]
            self.system, self.messages = str(told.get("system", "")), messages
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{path} is no conversation that /save wrote") from None


def _hear(event: dict[str, Any], answer: Answer, on_piece: OnPiece, begun: float) -> None:
    if event.get("usage"):
        answer.tokens = event["usage"]["completion_tokens"]
    for choice in event.get("choices", ()):
        delta = choice.get("delta", {})
        for key, thinking in (("reasoning_content", True), ("content", False)):
            piece = delta.get(key)
            if not piece:
                continue
            if answer.first is None:
                answer.first = time.monotonic() - begun
            if thinking:
                answer.reasoning += piece
            else:
                answer.text += piece
            on_piece(piece, thinking)
        answer.reason = choice.get("finish_reason") or answer.reason
