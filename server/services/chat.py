"""Chat: a request to a prompt and a generation, a generation to the parts of an answer."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from msgspec import Struct, structs

from server.core.errors import IngleError, InvalidRequest, TemplateError
from server.core.protocol import Engine, EnginePool
from server.core.stats import StatsSink
from server.core.types import (
    EngineEvent,
    Finished,
    GenerateRequest,
    ModelInfo,
    TokenDelta,
    Usage,
)
from server.schemas.chat import ChatRequest, PromptRequest, TemplateRequest
from server.schemas.chat_answer import Call, Choice, Ended
from server.schemas.common import new_id
from server.schemas.output import CallArguments, CallStart, Content, Reasoning

from .apart import Apart, is_long
from .asking import ask_of, body_of, not_enforced
from .choices import Choices
from .formats import chat_format
from .formats.base import ChatFormat, Rendered
from .generation import Generation
from .models import find_engine
from .reading import ChoiceReader, Said
from .turns import turns_of

log = logging.getLogger("ingle.services")

T = TypeVar("T")
R = TypeVar("R", bound=PromptRequest)

_TOOL = re.compile(r"^tools(\[\d+\])\.function")
"""Formats know of tools only; who sent functions is told of functions."""


class End(Struct, frozen=True):
    index: int
    ended: Ended


class ChatAnswer:
    """The choices of one request, read as they are generated.

    `not_enforced` names keywords of schemas.
    """

    def __init__(
        self, generation: Generation, readers: list[ChoiceReader], not_enforced: list[str]
    ) -> None:
        self.generation = generation
        self.not_enforced = not_enforced
        self._readers = dict(zip(generation.choices, readers, strict=True))
        self._ended: list[Ended] = []

    async def admitted(self) -> int:
        """See `Generation.admitted`."""
        return await self.generation.admitted()

    async def __aiter__(self) -> AsyncGenerator[list[Said | End]]:
        """What each step brought; nothing comes of a step that said nothing."""
        async for events in self.generation:
            heard: list[Said | End] = []
            for event in events:
                heard += self._heard(event)
            if heard:
                yield heard

    def usages(self) -> list[Usage]:
        return self.generation.usages()

    def reasoning_tokens(self) -> int:
        return sum(ended.reasoning_tokens for ended in self._ended)

    def _heard(self, event: EngineEvent) -> Sequence[Said | End]:
        reader = self._readers[event.id]
        if isinstance(event, TokenDelta):
            return reader.push(event)
        if not isinstance(event, Finished):
            return ()
        said, ended = reader.finish(event)
        self._ended.append(ended)
        return [*said, End(self.generation.choices[event.id], ended)]


class ChatService:
    """`recommended` is as of Choices.

    `lenient`: a whole answer that spells a call without the family's tags is that call.
    """

    def __init__(
        self,
        pool: EnginePool,
        stats: StatsSink,
        *,
        max_choices: int,
        recommended: Mapping[str, dict[str, float]],
        lenient: bool = True,
        format_of: Callable[[ModelInfo], ChatFormat] = chat_format,
    ) -> None:
        self._pool = pool
        self._stats = stats
        self._choices = Choices(max_choices, recommended)
        self._lenient = lenient
        self._format_of = format_of
        self._formats: dict[str, ChatFormat] = {}
        self._apart = Apart()

    def learn_formats(self) -> None:
        """What templates do is tried out before the first request. Blocks; logs what is wrong."""
        for name in self._pool.names():
            engine = self._pool.get(name)
            info = engine.loaded
            if info and info.kind == "generate" and info.chat_template is not None:
                try:
                    self._format(engine)
                except IngleError as error:
                    log.warning("it cannot chat", extra={"model": name, "reason": error.message})

    async def start(self, request: ChatRequest, scope: str) -> tuple[Engine, ChatAnswer]:
        """An answer that every check short of the engine's has let pass."""
        request.check_together()
        choices = request.n or 1
        self._choices.check("n", choices)
        engine = await find_engine(self._pool, request.model)
        request.check_refused()
        samplings = self._choices.samplings(request, engine, choices)
        ends = request.end_tokens(engine.info.vocabulary)
        given = (request.tools, request.functions, *request.constraints())
        rendered, left_out = await self._off_loop(
            self._prepared, engine, request, long=bool(request.gbnf) or is_long(*given)
        )
        asked = _asked(request, rendered, ends, scope)
        requests = [
            structs.replace(asked, id=new_id("seq-"), sampling=sampling) for sampling in samplings
        ]
        legacy = bool(request.functions)
        readers = [ChoiceReader(i, rendered.parser(), legacy=legacy) for i in range(choices)]
        generation = Generation(engine, requests, self._stats, grammar_of=_grammar_of(request))
        return engine, ChatAnswer(generation, readers, left_out)

    async def prompt(self, request: TemplateRequest) -> str:
        """What the model would read."""
        request.check_together()
        engine = await find_engine(self._pool, request.model)
        request.check_refused()
        rendered = await self._off_loop(
            partial(self._rendered, body=""),
            engine,
            request,
            long=is_long(request.tools, request.functions),
        )
        return "".join(piece.text for piece in rendered.prompt)

    async def _off_loop(
        self, work: Callable[[Engine, R], T], engine: Engine, request: R, *, long: bool
    ) -> T:
        """`long` are the schemas and tools; long conversations wait for one another too."""
        large = is_long(request.messages)
        return await self._apart.off_loop(work, engine, request, long=long, large=large)

    def _prepared(self, engine: Engine, request: ChatRequest) -> tuple[Rendered, list[str]]:
        rendered = self._rendered(engine, request, body_of(request))
        return rendered, not_enforced(request)

    def _rendered(self, engine: Engine, request: PromptRequest, body: str) -> Rendered:
        try:
            turns = turns_of(request.messages)
            ask = ask_of(request, body, lenient=self._lenient)
            return self._format(engine).render(turns, ask)
        except RecursionError:
            raise TemplateError("The messages are nested too deeply.", param="messages") from None
        except InvalidRequest as error:
            if not (request.functions and error.param):
                raise
            raise _refusal_of(error, _TOOL.sub(r"functions\1", error.param)) from None

    def _format(self, engine: Engine) -> ChatFormat:
        info = engine.info
        if info.chat_template is None:
            raise TemplateError(
                f"The model {engine.name} has no chat template: it is a base model.",
                param="model",
            )
        found = self._formats.get(info.fingerprint)
        if found is None:
            found = self._formats[info.fingerprint] = self._format_of(info)
        return found


def _asked(
    request: ChatRequest, rendered: Rendered, ends: tuple[int, ...], scope: str
) -> GenerateRequest:
    """What is the same for all choices."""
    return GenerateRequest(
        id="",
        prompt=rendered.prompt,
        max_tokens=request.token_limit(),
        stop=request.stops(),
        hidden=rendered.hidden,
        hidden_start=rendered.hidden_start,
        stop_tokens=rendered.ends + ends,
        shown_tokens=rendered.shown,
        logprobs=request.scores(),
        grammar=rendered.grammar,
        scope=scope,
        priority=request.priority or 0,
        keep=request.keep(),
    )


def _grammar_of(request: ChatRequest) -> str:
    structure = request.structure()
    if structure and request.tool_use().mode != "required":
        return structure.param
    return "functions" if request.functions else "tools"


def _refusal_of(error: InvalidRequest, param: str) -> InvalidRequest:
    """The same refusal, of `param`."""
    return type(error)(error.message, param=param, code=error.error_code)


async def collect(answer: ChatAnswer, choices: int) -> list[Choice]:
    """Non-streaming is streaming, collected; a call that was cut off is no call."""
    collected = [Choice() for _ in range(choices)]
    async for heard in answer:
        for said in heard:
            _add(collected[said.index], said)
    return collected


def _add(choice: Choice, said: Said | End) -> None:
    if isinstance(said, End):
        choice.ended = said.ended
        del choice.calls[said.ended.calls :]
        return
    match said.part:
        case Content(text):
            choice.text += text
            choice.scores += said.scores
        case Reasoning(text):
            choice.reasoning += text
        case CallStart(_, id, name):
            choice.calls.append(Call(id, name))
        case CallArguments(index, text):
            choice.calls[index].arguments += text
