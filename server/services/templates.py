"""Chat templates as Hugging Face's are written, rendered so that user text stays text."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from server.core.errors import TemplateError
from server.core.types import ModelInfo, TextPiece

_OPEN, _CLOSE = "\ue000", "\ue001"

_BROKEN = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
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
        self._template = _compiled(source)
        self._knows_developer = "developer" in source
        self._constants = {"bos_token": info.bos_token, "eos_token": info.eos_token}
        spellings = "|".join(map(re.escape, info.special_tokens))
        self._special = re.compile(spellings) if spellings else None

    def render(self, messages: Sequence[Message]) -> tuple[TextPiece, ...]:
        marks = _Marks(self._special)
        turns = [marks.hide(self._known_role(message)) for message in messages]
        try:
            text = self._render(turns)
        except TemplateError:
            merged = _one_system_turn(turns)
            if merged == turns:
                raise
            text = self._render(merged)
        return marks.split(text)

    def _known_role(self, message: Message) -> Message:
        if message["role"] == "developer" and not self._knows_developer:
            return {**message, "role": "system"}
        return message

    def _render(self, turns: list[Message]) -> str:
        try:
            return self._template.render(
                messages=turns, add_generation_prompt=True, **self._constants
            )
        except _BROKEN as error:
            raise TemplateError(
                f"The model's chat template cannot render these messages: {error}",
                param="messages",
            ) from error


class _Marks:
    """Stand-ins for the special spellings of one request. The mark cannot be guessed."""

    def __init__(self, special: re.Pattern[str] | None) -> None:
        self._special = special
        self._nonce = secrets.token_hex(8)
        self._hidden: list[str] = []

    def hide(self, value: Any) -> Any:
        if self._special is None:
            return value
        if isinstance(value, str):
            return self._special.sub(self._mark, value)
        if isinstance(value, Mapping):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.hide(item) for item in value]
        return value

    def _mark(self, match: re.Match[str]) -> str:
        self._hidden.append(match[0])
        return f"{_OPEN}{self._nonce}.{len(self._hidden) - 1}{_CLOSE}"

    def split(self, text: str) -> tuple[TextPiece, ...]:
        text = text.encode("utf-8", "replace").decode()
        if not self._hidden:
            return (TextPiece(text),)
        parts = re.split(f"{_OPEN}{self._nonce}\\.(\\d+){_CLOSE}", text)
        pieces = [
            TextPiece(self._hidden[int(part)], plain=True) if i % 2 else TextPiece(part)
            for i, part in enumerate(parts)
        ]
        return tuple(piece for piece in pieces if piece.text)


def _one_system_turn(turns: list[Message]) -> list[Message]:
    """All system turns as one leading one, for templates that take it nowhere else."""
    system = [turn["content"] for turn in turns if turn["role"] == "system"]
    rest = [turn for turn in turns if turn["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(system)}, *rest] if system else turns


def _compiled(source: str) -> jinja2.Template:
    try:
        return _environment().from_string(source)
    except jinja2.TemplateError as error:
        raise TemplateError(
            f"The model's chat template is damaged: {error}", param="model"
        ) from error


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
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
    """As transformers does it: without Jinja's escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


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
