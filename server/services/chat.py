"""Chat: messages to a prompt, a request to a generation, a generation to a whole answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

from server.core.errors import InvalidRequest, TemplateError
from server.core.protocol import Engine, EnginePool
from server.core.stats import StatsSink
from server.core.types import Finished, GenerateRequest, TextPiece
from server.schemas.chat import ChatRequest, Choice, Message
from server.schemas.common import new_id

from .generation import Generation
from .models import find_engine
from .templates import ChatTemplate


class ChatService:
    """`recommended` is sampling by model name, used where a request leaves it open."""

    def __init__(
        self,
        pool: EnginePool,
        stats: StatsSink,
        *,
        max_choices: int,
        recommended: Mapping[str, dict[str, float]],
    ) -> None:
        self._pool = pool
        self._stats = stats
        self._max_choices = max_choices
        self._recommended = recommended
        self._templates: dict[str, ChatTemplate] = {}

    async def start(self, request: ChatRequest, scope: str) -> tuple[Engine, Generation]:
        """A generation that every check short of the engine's has let pass."""
        engine = find_engine(self._pool, request.model)
        request.check_refused()
        choices = request.n or 1
        if choices > self._max_choices:
            raise InvalidRequest(
                f"Invalid 'n': {choices} is more than this server's limit of {self._max_choices}.",
                param="n",
                code="integer_above_max_value",
            )
        recommended = {**engine.info.sampling, **self._recommended.get(engine.name, {})}
        samplings = [request.sampling(recommended, choice) for choice in range(choices)]
        prompt = await asyncio.to_thread(self._prompt, engine, request.messages)
        requests = [
            GenerateRequest(
                id=new_id("seq-"),
                prompt=prompt,
                sampling=sampling,
                max_tokens=request.token_limit(),
                stop=request.stops(),
                scope=scope,
                priority=request.priority or 0,
            )
            for sampling in samplings
        ]
        return engine, Generation(engine, requests, self._stats)

    async def prompt(self, request: ChatRequest) -> str:
        """What the model would read."""
        engine = find_engine(self._pool, request.model)
        request.check_refused()
        pieces = await asyncio.to_thread(self._prompt, engine, request.messages)
        return "".join(piece.text for piece in pieces)

    def _prompt(self, engine: Engine, messages: list[Message]) -> tuple[TextPiece, ...]:
        template = self._template(engine)
        try:
            turns = [_turn(message, f"messages[{i}]") for i, message in enumerate(messages)]
            return template.render(turns)
        except RecursionError:
            raise TemplateError("The messages are nested too deeply.", param="messages") from None

    def _template(self, engine: Engine) -> ChatTemplate:
        info = engine.info
        if info.chat_template is None:
            raise TemplateError(
                f"The model {engine.name} has no chat template: it is a base model.",
                param="model",
            )
        found = self._templates.get(info.fingerprint)
        if found is None:
            found = self._templates[info.fingerprint] = ChatTemplate(info.chat_template, info)
        return found


async def collect(generation: Generation) -> list[Choice]:
    """Non-streaming is streaming, collected."""
    choices = [Choice() for _ in generation.choices]
    async for events in generation:
        for event in events:
            choice = choices[generation.choices[event.id]]
            if isinstance(event, Finished):
                choice.reason, choice.usage = event.reason, event.usage
            else:
                choice.text += event.text
    return choices


def _turn(message: Message, path: str) -> dict[str, Any]:
    """A message as templates expect it."""
    turn: dict[str, Any] = {"role": message.role, "content": message.text(path)}
    if message.reasoning_content:
        turn["reasoning_content"] = message.reasoning_content
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        turn["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    return turn


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    """Arguments arrive as JSON text; templates print them as JSON themselves."""
    function = call.get("function")
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError):
            arguments = json.loads(arguments or "{}")
    return {**call, "function": {**function, "arguments": arguments}}
