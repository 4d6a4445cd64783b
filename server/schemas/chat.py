"""/v1/chat/completions on the wire: the request, the response, and the frames of a stream."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field

from server.core.errors import InvalidRequest
from server.core.types import FinishReason, Usage

from .common import Limit, Refused, SamplingFields, StreamOptions, new_id, usage_body
from .structure import StructureFields

Role = Literal["developer", "system", "user", "assistant", "tool", "function"]
MAX_MESSAGES = 10_000
_MAY_LACK_CONTENT = ("tool_calls", "function_call", "refusal")


class ContentPart(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    type: str
    text: str | None = None


class Message(BaseModel):
    """One turn. Fields that clients echo back from answers are accepted and not looked at."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    role: Role
    content: str | Annotated[list[ContentPart], Field(fail_fast=True, min_length=1)] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    def text(self, path: str) -> str:
        """The content as one string; `path` names the message in errors."""
        if isinstance(self.content, str):
            return self.content
        if self.content is None:
            return self._no_content(path)
        return "\n".join(
            _part_text(part, f"{path}.content[{i}]") for i, part in enumerate(self.content)
        )

    def _no_content(self, path: str) -> str:
        allowed = self.role == "assistant" and any(
            getattr(self, name, None) or (self.model_extra or {}).get(name)
            for name in _MAY_LACK_CONTENT
        )
        if not allowed and "content" not in self.model_fields_set:
            raise InvalidRequest(
                f"Missing required parameter: '{path}.content'.",
                param=f"{path}.content",
                code="missing_required_parameter",
            )
        return ""


def _part_text(part: ContentPart, path: str) -> str:
    if part.type == "refusal":
        return str((part.model_extra or {}).get("refusal") or "")
    if part.type != "text":
        raise InvalidRequest(
            f"'{path}' has type '{part.type[:32]}'; this model reads text only. Send text parts.",
            param=path,
            code="unsupported_content",
        )
    if part.text is None:
        raise InvalidRequest(
            f"Missing required parameter: '{path}.text'.",
            param=f"{path}.text",
            code="missing_required_parameter",
        )
    return part.text


class ChatRequest(StructureFields, SamplingFields):
    ignored: ClassVar[dict[str, str]] = {
        "prediction": "speculation needs no hint; no predicted token is ever charged",
        "verbosity": "no local model knows it",
        "store": "nothing is stored",
        "metadata": "nothing is stored",
        "service_tier": "there is one tier",
        "user": "keys tell users apart",
        "safety_identifier": "keys tell users apart",
        "prompt_cache_key": "every shared prefix is found without",
        "prompt_cache_retention": "every shared prefix is found without",
        "prompt_cache_options": "every shared prefix is found without",
        "parallel_tool_calls": "there are no tools yet",
        "moderation": "nothing is moderated",
        "cache_prompt": "prompts are always cached",
        "id_slot": "the scheduler chooses",
        "options": "Ollama's own; send its fields at the top level",
        "keep_alive": "models stay loaded",
    }
    refused: ClassVar[dict[str, Refused]] = {
        "tools": Refused("Describe the tools in a message.", ([],)),
        "tool_choice": Refused("Remove it.", ("none", "auto")),
        "functions": Refused("Describe the functions in a message.", ([],)),
        "function_call": Refused("Remove it.", ("none", "auto")),
        "logprobs": Refused("Remove it.", (False,)),
        "top_logprobs": Refused("Remove it.", (0,)),
        "reasoning_effort": Refused("Remove it."),
        "modalities": Refused("Ask for text: answers are text only.", (["text"],)),
        "audio": Refused("Remove it: answers are text only."),
        "web_search_options": Refused("Search yourself and send what you found in a message."),
        "chat_template_kwargs": Refused("Remove it.", ({},)),
        "add_generation_prompt": Refused("Remove it.", (True,)),
        "continue_final_message": Refused("Remove it.", (False,)),
    }

    model: str | None = None
    """May be left out when one model is served."""
    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    """`include_usage` is honoured; obfuscation is never sent."""
    max_completion_tokens: Limit = None
    """Wins over `max_tokens`; -1 is no limit."""
    max_tokens: Limit = None
    """More than there is room for is no error: the answer ends with `length`."""

    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatHead(Struct, frozen=True):
    """What is the same in every chunk of one answer."""

    id: str
    created: int
    model: str
    fingerprint: str

    @classmethod
    def new(cls, model: str, fingerprint: str) -> ChatHead:
        return cls(new_id("chatcmpl-"), int(time.time()), model, fingerprint)

    def fields(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class Choice(Struct):
    """One answer, as far as it came."""

    text: str = ""
    reason: FinishReason | None = None
    usage: Usage | None = None


def chat_body(head: ChatHead, choices: list[Choice]) -> dict[str, Any]:
    return {
        **head.fields("chat.completion"),
        "choices": [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": choice.text,
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": choice.reason,
            }
            for index, choice in enumerate(choices)
        ],
        "usage": usage_body([choice.usage for choice in choices if choice.usage]),
        "service_tier": "default",
    }


class ChatFrames:
    """The SSE frames of one stream. What never changes in it is encoded once."""

    def __init__(self, head: ChatHead, *, include_usage: bool) -> None:
        common = json.dumps(head.fields("chat.completion.chunk"))[:-1]
        self._start = f"data: {common}, ".encode()
        self._end = b', "usage": null}\n\n' if include_usage else b"}\n\n"

    def role(self, index: int) -> bytes:
        return self._choice(index, '{"role": "assistant", "content": ""}', "null")

    def content(self, index: int, text: str) -> bytes:
        return self._choice(index, f'{{"content": {json.dumps(text)}}}', "null")

    def finish(self, index: int, reason: FinishReason) -> bytes:
        return self._choice(index, "{}", f'"{reason}"')

    def usage(self, usages: list[Usage]) -> bytes:
        body = json.dumps(usage_body(usages)).encode()
        return self._start + b'"choices": [], "usage": ' + body + b"}\n\n"

    def _choice(self, index: int, delta: str, reason: str) -> bytes:
        choice = (
            f'"choices": [{{"index": {index}, "delta": {delta},'
            f' "logprobs": null, "finish_reason": {reason}}}]'
        )
        return self._start + choice.encode() + self._end
