"""/v1/completions on the wire: the request, the response, and the frames of a stream."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, cast

from msgspec import Struct, field
from pydantic import BeforeValidator, Field, WrapValidator
from pydantic_core import PydanticCustomError, PydanticKnownError

from server.core.errors import InvalidRequest
from server.core.types import FinishReason, Usage

from .common import NO_LIMIT, Refused, usage_body
from .head import AnswerHead
from .keeping import KeepFields
from .legacy_logprobs import Logprobs
from .sampling import SamplingFields, StreamFields
from .structure import StructureFields

DEFAULT_MAX_TOKENS = 16
MAX_PROMPTS = 512

Prompt = str | list[int]


def _shape(value: Any, _: Any) -> Any:
    """One pass by hand: a union of lists would name every shape it could have been."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise PydanticCustomError("prompt_type", "it must be text, token ids, or a list of these")
    if value and _is_id(value[0]):
        _check_ids(value)
        return value
    _check_length(value, most=MAX_PROMPTS)
    for prompt in value:
        if isinstance(prompt, list):
            _check_ids(prompt)
        elif not isinstance(prompt, str):
            raise PydanticCustomError("prompt_type", "each prompt must be text or token ids")
    return value


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_ids(value: list[Any]) -> None:
    _check_length(value)
    if not all(map(_is_id, value)):
        raise PydanticCustomError("prompt_type", "a list of token ids may hold integers only")
    if min(value) < 0 or max(value) > NO_LIMIT:
        raise PydanticCustomError("token_value", "it holds a number that is no token id")


def _check_length(value: list[Any], *, most: int | None = None) -> None:
    if not value:
        raise PydanticKnownError(
            "too_short", {"field_type": "List", "min_length": 1, "actual_length": 0}
        )
    if most is not None and len(value) > most:
        raise PydanticKnownError(
            "too_long", {"field_type": "List", "max_length": most, "actual_length": len(value)}
        )


def _limit(value: Any) -> Any:
    if not _is_id(value):
        return value
    return NO_LIMIT if value == -1 else min(value, NO_LIMIT)


def _flag_is_number(value: Any) -> Any:
    """Clients that mean the chat field of this name send true or false."""
    return (0 if value else None) if isinstance(value, bool) else value


_Prompts = Annotated[str | list[str] | list[int] | list[list[int]] | None, WrapValidator(_shape)]
_Limit = Annotated[
    Annotated[int, Field(ge=0)] | None,
    BeforeValidator(_limit, json_schema_input_type=Annotated[int, Field(ge=-1)] | None),
]
_Alternatives = Annotated[
    Annotated[int, Field(ge=0, le=20)] | None,
    BeforeValidator(
        _flag_is_number, json_schema_input_type=Annotated[int, Field(ge=0, le=20)] | bool | None
    ),
]


class CompletionRequest(StructureFields, SamplingFields, StreamFields, KeepFields):
    ignored: ClassVar[dict[str, str]] = {
        "user": "keys tell users apart",
        "store": "nothing is stored",
        "metadata": "nothing is stored",
        "service_tier": "there is one tier",
        "cache_prompt": "prompts are always cached",
        "id_slot": "the scheduler chooses",
        "options": "Ollama's own; send its fields at the top level",
    }
    refused: ClassVar[dict[str, Refused]] = {
        "prompt_embeds": Refused("Send text or token ids in 'prompt'."),
        "messages": Refused("Use /v1/chat/completions.", ([],)),
        "tools": Refused("Use /v1/chat/completions.", ([],)),
    }

    model: str | None = None
    """May be left out when one model is served."""
    prompt: _Prompts = None
    """Text as the model reads it: control tokens may be spelled out, no template is applied. Left
    out or empty: the model's token for the beginning of a text."""
    suffix: str | None = None
    """For models with fill-in-the-middle tokens: the answer stands between `prompt` and it."""
    max_tokens: _Limit = None
    """16 unless given; 0 only reads the prompt, -1 is no limit."""
    logprobs: _Alternatives = None
    """So many alternatives beside each token of the text."""
    echo: bool | None = None
    """The text begins with the prompt. With `logprobs` every token of the prompt is scored."""
    best_of: int | None = Field(None, ge=0, le=20)
    """So many answers are generated; the `n` of the highest mean logprob are returned."""

    def check_together(self) -> None:
        """Raises InvalidRequest for all that is wrong whatever the model."""
        self.check_sampling(self.token_limit())
        self.structure()

    def prompts(self) -> list[Prompt]:
        """At least one; the empty text asks for the beginning of a text."""
        if self.prompt is None or isinstance(self.prompt, str):
            return [self.prompt or ""]
        if _is_id(self.prompt[0]):
            return [cast(list[int], self.prompt)]
        return cast(list[Prompt], self.prompt)

    def token_limit(self) -> int:
        return DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def choices(self) -> int:
        """Of each prompt."""
        return self.n or 1

    def candidates(self) -> int:
        """How many answers to a prompt are generated. Raises InvalidRequest."""
        best_of = self.best_of or self.choices
        if best_of < self.choices:
            raise InvalidRequest(
                f"Invalid 'best_of': {best_of} answers cannot be the best {self.choices} ('n')."
                " Send at least as many as 'n'.",
                param="best_of",
            )
        if best_of > self.choices and self.stream:
            raise InvalidRequest(
                "Invalid 'best_of': which answer is best is known at the end only."
                " Leave out 'stream' or 'best_of'.",
                param="best_of",
            )
        return best_of

    @property
    def scores_prompt(self) -> bool:
        return bool(self.echo) and self.logprobs is not None


class Piece(Struct, frozen=True):
    """What came next of choice `index`. `echo`: it is the prompt. The last one has a reason."""

    index: int
    text: str = ""
    logprobs: Logprobs | None = None
    reason: FinishReason | None = None
    echo: bool = False


class Choice(Struct):
    """One answer, as far as it came."""

    logprobs: Logprobs | None
    text: str = ""
    reason: FinishReason | None = None
    generated: list[float | None] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.reason = piece.reason or self.reason
        if piece.logprobs is not None and self.logprobs is not None:
            self.logprobs.extend(piece.logprobs)
            self.generated += [] if piece.echo else piece.logprobs.token_logprobs

    @property
    def mean(self) -> float:
        """The mean logprob of its tokens; an empty answer is the worst."""
        scores = [score for score in self.generated if score is not None]
        return sum(scores) / len(scores) if scores else float("-inf")


def completion_body(head: AnswerHead, choices: list[Choice], usage: Usage) -> dict[str, Any]:
    return {
        **head.fields("text_completion"),
        "choices": [
            {
                "text": choice.text,
                "index": index,
                "logprobs": choice.logprobs.body() if choice.logprobs else None,
                "finish_reason": choice.reason,
            }
            for index, choice in enumerate(choices)
        ],
        "usage": usage_body([usage]),
    }


class CompletionFrames:
    """The SSE frames of one stream. What never changes in it is encoded once."""

    def __init__(self, head: AnswerHead, choices: int, *, include_usage: bool) -> None:
        common = json.dumps(head.fields("text_completion"))[:-1]
        self._open = list(range(choices))
        self._start = f"data: {common}, ".encode()
        self._end = b', "usage": null}\n\n' if include_usage else b"}\n\n"

    def idle(self) -> bytes:
        """As of ChatFrames."""
        return self.piece(Piece(self._open[0])) if self._open else b""

    def piece(self, piece: Piece) -> bytes:
        if piece.reason:
            self._open.remove(piece.index)
        logprobs = json.dumps(piece.logprobs.body()) if piece.logprobs else "null"
        reason = f'"{piece.reason}"' if piece.reason else "null"
        choice = (
            f'"choices": [{{"text": {json.dumps(piece.text)}, "index": {piece.index},'
            f' "logprobs": {logprobs}, "finish_reason": {reason}}}]'
        )
        return self._start + choice.encode() + self._end

    def usage(self, usage: Usage) -> bytes:
        body = json.dumps(usage_body([usage])).encode()
        return self._start + b'"choices": [], "usage": ' + body + b"}\n\n"
