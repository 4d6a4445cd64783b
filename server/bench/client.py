"""A streaming chat client that writes down when what came."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Struct

from server.core.errors import ConfigError

from .http import Endpoint, Exchange, HttpError
from .sse import EventParser

_LONGEST_ERROR = 200


@dataclass(frozen=True, slots=True)
class Chat:
    """One chat completion to ask for. Greedy, so that every server writes much the same."""

    messages: tuple[dict[str, str], ...]
    max_tokens: int
    schema: dict[str, Any] | None = None
    top_logprobs: int | None = None

    def body(self, model: str) -> bytes:
        body: dict[str, Any] = {
            "model": model,
            "messages": self.messages,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.schema is not None:
            schema = {"name": "answer", "strict": True, "schema": self.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if self.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return msgspec.json.encode(body)


class PromptDetails(Struct, frozen=True):
    cached_tokens: int | None = None


class Usage(Struct, frozen=True):
    """The server's own count; a chunk may hold any number of tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int:
        return (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0


@dataclass(slots=True)
class Answer:
    """What one request brought; times are `time.perf_counter()` seconds.

    `chunks` holds each arrival of content; what one read brings is one arrival. The connection is
    open when `started` is taken: a TLS handshake is not the server's latency.
    """

    started: float = 0.0
    ended: float = 0.0
    chunks: list[float] = field(default_factory=list)
    text: str = ""
    usage: Usage | None = None
    finish_reason: str | None = None
    error: str | None = None

    @property
    def ttft(self) -> float | None:
        return self.chunks[0] - self.started if self.chunks else None


OnContent = Callable[[Answer], None]


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


async def ask(
    endpoint: Endpoint, model: str, chat: Chat, on_content: OnContent | None = None
) -> Answer:
    """Never raises for what the server does: `Answer.error` tells. `on_content` is
    called at each arrival."""
    answer = Answer()
    body = chat.body(model)
    try:
        async with Exchange(endpoint) as exchange:
            answer.started = time.perf_counter()
            status = await exchange.send("POST", "/chat/completions", body)
            if status == 200:
                await _read(exchange, answer, on_content)
            else:
                answer.error = f"{status} {_message(await exchange.body())}"
    except (HttpError, msgspec.MsgspecError) as error:
        answer.error = str(error)[:_LONGEST_ERROR]
    answer.ended = time.perf_counter()
    if answer.error is None and answer.usage is None:
        answer.error = "the server sent no usage block"
    return answer


async def _read(exchange: Exchange, answer: Answer, on_content: OnContent | None) -> None:
    parser = EventParser()
    texts = []
    async for data in exchange.chunks():
        now = time.perf_counter()
        events = [event for event in parser.feed(data) if event != b"[DONE]"]
        text = "".join([_note(answer, event) for event in events])
        if text:
            answer.chunks.append(now)
            texts.append(text)
            if on_content is not None:
                on_content(answer)
    answer.text = "".join(texts)


def _note(answer: Answer, event: bytes) -> str:
    """Take down one chunk; the content it carries."""
    chunk = _decode(event)
    if chunk.error is not None:
        answer.error = _message(event)
    if chunk.usage is not None:
        answer.usage = chunk.usage
    text = ""
    for choice in chunk.choices:
        text += (choice.delta.reasoning_content or "") + (choice.delta.content or "")
        answer.finish_reason = choice.finish_reason or answer.finish_reason
    return text


async def get(endpoint: Endpoint, path: str) -> bytes:
    """Raises HttpError, for any status but 200 too."""
    async with Exchange(endpoint) as exchange:
        status = await exchange.send("GET", path)
        body = await exchange.body()
    if status != 200:
        raise HttpError(f"{status} {_message(body)}")
    return body


async def first_model(endpoint: Endpoint) -> str:
    """The first of /models. Raises ConfigError."""
    try:
        return str(msgspec.json.decode(await get(endpoint, "/models"))["data"][0]["id"])
    except HttpError as error:
        where = f"{endpoint.host}:{endpoint.port}{endpoint.prefix}"
        raise ConfigError(
            f"no OpenAI API at {where} ({error}); start one with `ingle serve`, or give its URL"
        ) from None
    except (msgspec.MsgspecError, LookupError, TypeError):
        raise ConfigError("/models lists no model; name one with --model") from None


def _message(body: bytes) -> str:
    """What an OpenAI error envelope says, or the body itself."""
    try:
        text = str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.MsgspecError, LookupError, TypeError):
        text = body.decode(errors="replace")
    return " ".join(text.split())[:_LONGEST_ERROR]
