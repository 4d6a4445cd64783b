"""What was said so far, and the next answer to it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.core.errors import ConfigError

if TYPE_CHECKING:
    from server.cli.remote import Remote

PARAMETERS: dict[str, type[int] | type[float] | type[bool]] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "repeat_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "max_tokens": int,
    "seed": int,
    "think": bool,
}
"""What may be set, by the names of the API but for `think`."""
_SWITCHES = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
_ON_THE_WIRE = {"think": "enable_thinking"}
_LARGEST_FILE = 64 << 20
_TEXT_TOKENS = 256
"""A base model seldom ends by itself, and the API's 16 are a few words."""

OnPiece = Callable[[str, bool], None]
"""Called with each piece of an answer, and whether the model is thinking."""


@dataclass
class Answer:
    """`first` and `seconds` are from the question on; the tokens are as the server counts them."""

    text: str = ""
    reasoning: str = ""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    tokens: int | None = None
    first: float | None = None
    seconds: float = 0.0
    stopped: bool = False
    reason: str | None = None

    @property
    def rate(self) -> float | None:
        """Tokens a second after the first one."""
        if self.tokens is None or self.first is None or self.tokens < 2:
            return None
        after = self.seconds - self.first
        return (self.tokens - 1) / after if after > 0 else None


@dataclass
class Conversation:
    """With a base model (`chats` is False) there is none: it goes on with each text alone."""

    model: str
    system: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)
    chats: bool = True

    def set(self, name: str, value: str) -> None:
        """An empty value unsets it. Raises ConfigError; the server checks what it may be."""
        kind = PARAMETERS.get(name)
        if kind is None:
            raise ConfigError(f"there is no parameter {name}; there are {', '.join(PARAMETERS)}")
        if value in ("", "default"):
            self.parameters.pop(name, None)
        elif kind is bool:
            if value.lower() not in _SWITCHES:
                raise ConfigError(f"{name} is on or off, not {value}")
            self.parameters[name] = _SWITCHES[value.lower()]
        else:
            try:
                self.parameters[name] = kind(value)
            except ValueError:
                what = "a whole number" if kind is int else "a number"
                raise ConfigError(f"{name} is {what}, not {value}") from None

    def ask(self, server: Remote, question: str, on_piece: OnPiece) -> Answer:
        """Both are part of the conversation once the answer ends, or is stopped by Ctrl-C.

        Raises what `Remote.events` raises; then nothing was said.
        """
        answer, begun = Answer(), time.monotonic()
        path, body = self._request(question)
        try:
            with closing(server.events(path, body)) as events:
                for event in events:
                    _hear(event, answer, on_piece, begun)
        except KeyboardInterrupt:
            answer.stopped = True
        answer.seconds = time.monotonic() - begun
        self.messages.append({"role": "user", "content": question})
        self.messages.append({"role": "assistant", "content": answer.text})
        return answer

    def _request(self, question: str) -> tuple[str, dict[str, Any]]:
        given = {_ON_THE_WIRE.get(name, name): value for name, value in self.parameters.items()}
        body: dict[str, Any] = {
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not self.chats:
            given.pop(_ON_THE_WIRE["think"], None)
            body |= {"prompt": question, "max_tokens": _TEXT_TOKENS}
            return "/v1/completions", body | given
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = [*system, *self.messages, {"role": "user", "content": question}]
        return "/v1/chat/completions", {**body, "messages": messages, **given}

    def retract(self) -> str | None:
        """Take back the last question and its answer. Returns the question."""
        if not self.messages:
            return None
        question = self.messages[-2]["content"]
        del self.messages[-2:]
        return question

    def save(self, path: Path) -> None:
        """For its owner alone to read. Raises ConfigError."""
        told = {"model": self.model, "system": self.system, "messages": self.messages}
        text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
        try:
            with open(path.expanduser(), "w", encoding="utf-8", opener=_privately) as file:
                file.write(text)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from None

    def restore(self, path: Path) -> None:
        """What `save` wrote. Raises ConfigError, and then nothing has changed."""
        try:
            with path.expanduser().open("rb") as file:
                told = json.loads(file.read(_LARGEST_FILE))
            messages = [_message(one) for one in told["messages"]]
            system = told.get("system", "")
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            messages, system = [], None
        roles = [message["role"] for message in messages]
        if not isinstance(system, str) or roles != ["user", "assistant"] * (len(roles) // 2):
            raise ConfigError(f"{path} is no conversation that /save wrote")
        self.system, self.messages = system, messages


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _message(one: dict[str, Any]) -> dict[str, str]:
    role, content = one["role"], one["content"]
    if not (isinstance(role, str) and isinstance(content, str)):
        raise TypeError("not a message")
    return {"role": role, "content": content}


def _hear(event: dict[str, Any], answer: Answer, on_piece: OnPiece, begun: float) -> None:
    if usage := event.get("usage"):
        answer.prompt_tokens, answer.tokens = usage["prompt_tokens"], usage["completion_tokens"]
        details = usage.get("prompt_tokens_details") or {}
        answer.cached_tokens = details.get("cached_tokens")
    for choice in event.get("choices", ()):
        delta = choice.get("delta") or {"content": choice.get("text")}
        for key, thinking in (("reasoning_content", True), ("content", False)):
            if piece := delta.get(key):
                if answer.first is None:
                    answer.first = time.monotonic() - begun
                if thinking:
                    answer.reasoning += piece
                else:
                    answer.text += piece
                on_piece(piece, thinking)
        answer.reason = choice.get("finish_reason") or answer.reason
