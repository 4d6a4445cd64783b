"""The border between a chat request and how one model family writes tool calls and reasoning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from server.core.types import FinishReason, TextPiece
from server.schemas.output import Part

Turn = Mapping[str, Any]
"""A message as templates expect it; the arguments of tool calls are objects already."""


class Tool(Struct, frozen=True):
    """`parameters` is a JSON Schema of type object."""

    name: str
    parameters: dict[str, Any]
    description: str = ""
    strict: bool = False


class Ask(Struct, frozen=True):
    """What a request wants of its answer.

    `tools` stand in the prompt; only those named in `callable` may be called. `mode` "required"
    forces at least one call (a named choice is one callable tool), `parallel` false allows one.
    `body` is empty for free text, or a Lark fragment (rules and terminals of llguidance's dialect)
    that defines the rule `body`: what the visible text must be. `thinking` None leaves it to the
    template; `effort` is passed to it; `reasoning_budget` closes the block after so many tokens.
    `lenient`: an answer that is exactly a call counts as one without the family's tags.
    `variables` are the client's own `chat_template_kwargs`. `prefill` continues the last turn.
    """

    tools: tuple[Tool, ...] = ()
    mode: Literal["none", "auto", "required"] = "none"
    callable: frozenset[str] = frozenset()
    parallel: bool = True
    body: str = ""
    thinking: bool | None = None
    effort: str | None = None
    reasoning_budget: int | None = None
    lenient: bool = True
    variables: Mapping[str, Any] = {}
    prefill: bool = False
    add_generation_prompt: bool = True


class Parser(Protocol):
    """Reads one answer's raw text as it arrives. Every character is used exactly once."""

    def push(self, text: str) -> list[Part]: ...

    def finish(self, reason: FinishReason) -> list[Part]:
        """What was held back. A call cut off by the limit is left as far as it was sent."""
        ...

    @property
    def complete_calls(self) -> int:
        """Calls whose arguments are complete: with at least one, the answer ends in tool calls."""
        ...


class Rendered(Struct, frozen=True):
    """A prompt, and how to generate and read what follows it. Each choice has a parser of its own.

    `grammar` (Lark of llguidance) is empty where everything is allowed. `shown` are the control
    tokens whose spelling the parser needs in the text, `ends` those that end the answer beside the
    model's own end tokens; both are ids. `hidden` and `hidden_start` are GenerateRequest's.
    """

    prompt: tuple[TextPiece, ...]
    parser: Callable[[], Parser]
    grammar: str = ""
    shown: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    hidden: tuple[tuple[str, str], ...] = ()
    hidden_start: str = ""


class ChatFormat(Protocol):
    """One model's template with what its family makes of tools and reasoning."""

    def render(self, turns: Sequence[Turn], ask: Ask) -> Rendered:
        """Raises TemplateError for what the template refuses, InvalidRequest for what cannot be
        asked of this model."""
        ...
