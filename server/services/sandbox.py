"""Jinja as Hugging Face's chat templates expect it.

A template does not get out of it, but may take any time and memory, compiled or rendered. So this
is a program too, for `rendering` to end: `python -m server.services.sandbox` is asked in JSON,
`[source, variables]`, and answers with one byte of TEXT, WRONG or BUG, and what it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from server.core.child import answer_questions
from server.core.errors import TemplateError

MAX_TEXT = 16 * 1024 * 1024
"""Characters of a prompt; nothing that fits in a context comes near."""
SECONDS = 1.2
"""What one rendering may take; an ordinary one takes a millisecond."""
MEMORY = 512 << 20
TEXT, WRONG, BUG = b"\0", b"\1", b"\2"
_MAX_COMPLAINT = 500
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

_BROKEN = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template may raise by its own fault or by what it makes of the messages."""


def render(source: str, given: Mapping[str, Any]) -> str:
    """The template's text with these variables. Raises TemplateError for what it refuses."""
    try:
        said = _bounded_text(_compiled(source).generate(_fixed(given)))
        return said.encode("utf-8", "replace").decode()
    except MemoryError:
        reason = "it needs too much memory"
    except _BROKEN as error:
        reason = _ADDRESS.sub("", str(error))[:_MAX_COMPLAINT]
    raise TemplateError(
        f"The model's chat template cannot render these messages: {reason}", param="messages"
    )


def _bounded_text(chunks: Iterator[str]) -> str:
    said, size = [], 0
    for chunk in chunks:
        said.append(chunk)
        size += len(chunk)
        if size > MAX_TEXT:
            raise jinja2.TemplateError("it says too much")
    return "".join(said)


@lru_cache(8)
def _compiled(source: str) -> jinja2.Template:
    try:
        return _environment().from_string(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise TemplateError(
            f"The model's chat template is damaged: {str(error)[:_MAX_COMPLAINT]}", param="model"
        ) from error


class _FixedList(list[Any]):
    """A list of a request: templates may read it, and change only lists of their own."""


class _FixedDict(dict[Any, Any]):
    """A mapping of a request, which templates may only read."""


for _kind, _name in ((_FixedList, "list"), (_FixedDict, "dict")):  # for complaints
    _kind.__module__, _kind.__name__ = "builtins", _name


def _fixed(value: Any) -> Any:
    """The value with all its lists and mappings fixed."""
    if isinstance(value, Mapping):
        return _FixedDict({key: _fixed(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return _FixedList(map(_fixed, value))
    return value


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Lists and mappings that a template makes itself may be changed, a request's may not."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if type(obj) in (list, dict):
            return jinja2.sandbox.SandboxedEnvironment.is_safe_attribute(self, obj, attr, value)
        return super().is_safe_attribute(obj, attr, value)


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


def _answer(question: bytes) -> bytes:
    try:
        source, given = json.loads(question.decode("utf-8", "surrogatepass"))
        return TEXT + render(source, given).encode()
    except TemplateError as error:
        return WRONG + f"{error.param}\n{error.message}".encode("utf-8", "replace")
    except (MemoryError, RecursionError):
        return WRONG + b"messages\nThe messages are too much for the model's chat template."
    except Exception as bug:
        return BUG + type(bug).__name__.encode()


if __name__ == "__main__":
    answer_questions(_answer, memory=MEMORY, seconds=SECONDS)
