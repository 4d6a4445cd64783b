"""Chat templates as Hugging Face's are written, rendered so that user text stays text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from server.core.errors import TemplateError
from server.core.types import ModelInfo

from .marks import FixedDict, FixedList, Marks

_MAX_TEXT = 16 * 1024 * 1024
"""Characters of a prompt; nothing that fits in a context comes near."""
_MAX_SECONDS = 10.0
_MAX_ROUNDS = 1_000_000
"""Numbers that the ranges of one rendering may give out together."""

_BROKEN = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template may raise by its own fault or by what it makes of the messages."""

Message = Mapping[str, Any]


class ChatTemplate:
    """A model's own template. Raises TemplateError for what it refuses to render.

    Where a message spells a special token, a private mark stands in its place while the template
    renders, and comes out as a plain piece: `<|im_end|>` typed by a user never ends a turn.
    """

    def __init__(self, source: str, info: ModelInfo) -> None:
        self.source = source
        self._template = _compiled(source)
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
        given = {
            **self._constants,
            "range": _bounded_range(),
            **variables,
            "messages": FixedList(turns),
        }
        try:
            return _bounded_text(self._template.generate(given))
        except _BROKEN as error:
            raise TemplateError(
                f"The model's chat template cannot render these messages: {error}",
                param="messages",
            ) from error


def one_system_turn(turns: Sequence[Message]) -> list[Message]:
    """All system turns as one leading one, for templates that take it nowhere else."""
    system = [turn["content"] or "" for turn in turns if turn["role"] == "system"]
    rest = [turn for turn in turns if turn["role"] != "system"]
    if not system or not all(isinstance(content, str) for content in system):
        return list(turns)
    return [FixedDict(role="system", content="\n\n".join(system)), *rest]


def _bounded_text(chunks: Iterator[str]) -> str:
    """What a template says, within the limits. A loop that says nothing has `range`'s alone."""
    deadline = time.monotonic() + _MAX_SECONDS
    said, size = [], 0
    for chunk in chunks:
        said.append(chunk)
        size += len(chunk)
        if size > _MAX_TEXT or time.monotonic() > deadline:
            raise jinja2.TemplateError("it says too much or takes too long")
    return "".join(said)


def _bounded_range() -> Callable[..., range]:
    left = _MAX_ROUNDS

    def bounded(*args: int) -> range:
        nonlocal left
        numbers = jinja2.sandbox.safe_range(*args)
        left -= len(numbers)
        if left < 0:
            raise OverflowError("its loops are too long")
        return numbers

    return bounded


def _compiled(source: str) -> jinja2.Template:
    try:
        return _environment().from_string(source)
    except jinja2.TemplateError as error:
        raise TemplateError(
            f"The model's chat template is damaged: {error}", param="model"
        ) from error


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Lists and mappings that a template makes itself may be changed, a request's may not."""

    intercepted_binops = frozenset(["+", "*", "**"])

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if type(obj) in (list, dict):
            return jinja2.sandbox.SandboxedEnvironment.is_safe_attribute(self, obj, attr, value)
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        """No text, list or number grows without bounds."""
        if operator == "**" and (abs(left) > 1e6 or abs(right) > 64):
            raise OverflowError("it computes too large a number")
        if _size(left, 0) + _size(right, 0) and operator != "**":
            grown = _size(left, left) * _size(right, right) if operator == "*" else 0
            if max(grown, _size(left, 0) + _size(right, 0)) > _MAX_TEXT:
                raise OverflowError("it makes too long a text or list")
        return super().call_binop(context, operator, left, right)


def _size(value: Any, number: Any) -> Any:
    return len(value) if isinstance(value, str | list | tuple) else number


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers does it: without Jinja's escapes for HTML. Generators are lists."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=_listed,
    )


def _listed(value: Any) -> list[Any]:
    if isinstance(value, Iterator):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, which marks training targets, renders its body."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_body")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()
