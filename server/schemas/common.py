"""What all OpenAI endpoints share: verdicts on fields, usage and ids."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from server.core.errors import InvalidRequest, UnsupportedParameter
from server.core.types import LEAST_LOGPROB, Usage

V = TypeVar("V")

_ALPHABET = string.ascii_letters + string.digits
NO_LIMIT = 1 << 30
"""Above any context and any vocabulary; larger numbers need not fit in 64 bits to mean it."""


def new_id(prefix: str) -> str:
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(24))


class Refused(NamedTuple):
    """A field that is not served: what to do instead, and the values that ask for nothing."""

    instead: str
    harmless: tuple[Any, ...] = ()


def _without(verdicts: dict[str, V], names: Iterable[str]) -> dict[str, V]:
    return {name: verdict for name, verdict in verdicts.items() if name not in set(names)}


IGNORED_INSIDE = "x-ignored"
"""Where a JSON schema keeps what API.md says of ignored fields."""


class Inner(BaseModel):
    """An object inside a request. Its unknown fields are ignored as those of the request are."""

    model_config = ConfigDict(
        extra="allow", strict=True, frozen=True, use_attribute_docstrings=True
    )

    ignored: ClassVar[dict[str, str]] = {}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler(core_schema)
        if cls.ignored:
            handler.resolve_ref_schema(schema)[IGNORED_INSIDE] = cls.ignored
        return schema


class RequestBody(BaseModel):
    """A request as it came. Null means absent, wrong types are errors, nothing is coerced.

    Every field has one of three verdicts, which API.md is written from:

    - honoured: it is declared; a docstring below it is its note
    - ignored: it is in `ignored` with the reason why that is harmless. Other unknown fields are
      ignored too, unless the server is strict. Both are named in `x-ignored-params`
    - refused: it is in `refused`; answered with 400 `unsupported_parameter`

    A class adds to the verdicts of its bases. What it declares is honoured.
    """

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        allow_inf_nan=False,
        frozen=True,
        use_attribute_docstrings=True,
    )

    ignored: ClassVar[dict[str, str]] = {}
    refused: ClassVar[dict[str, Refused]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        ignored: dict[str, str] = {}
        refused: dict[str, Refused] = {}
        for base in reversed(cls.__mro__):
            more_ignored = vars(base).get("ignored", {})
            more_refused = vars(base).get("refused", {})
            ignored = _without(ignored, more_refused) | more_ignored
            refused = _without(refused, more_ignored) | more_refused
        cls.ignored = _without(ignored, cls.model_fields)
        cls.refused = _without(refused, cls.model_fields)

    def check_known(self) -> None:
        """Raises InvalidRequest for the first field that no verdict names: what strict means."""
        for name, known in _extras(self):
            if not known:
                raise InvalidRequest(
                    f"Unknown parameter: '{name[:64]}'. Remove it from the request.",
                    param=name[:64],
                    code="unknown_parameter",
                )

    def check_refused(self) -> None:
        """Raises UnsupportedParameter for the first field that could only be ignored silently."""
        extra = self.model_extra or {}
        for name, verdict in self.refused.items():
            value = extra.get(name)
            if value is not None and value not in verdict.harmless:
                raise UnsupportedParameter(
                    f"Unsupported parameter: '{name}' is not supported by this server."
                    f" {verdict.instead}",
                    param=name,
                )

    def ignored_fields(self) -> list[str]:
        """`stream_options.x` is one inside another."""
        return [name for name, _ in _extras(self)]


def _extras(body: RequestBody | Inner, path: str = "") -> Iterator[tuple[str, bool]]:
    """The fields that are ignored, and whether a verdict says so."""
    refused = body.refused if isinstance(body, RequestBody) else {}
    for name, value in sorted((body.model_extra or {}).items()):
        if value is not None and name not in refused:
            yield path + name, name in body.ignored
    for name, field in type(body).model_fields.items():
        inner, where = getattr(body, name), path + (field.alias or name)
        if isinstance(inner, Inner):
            yield from _extras(inner, f"{where}.")
        elif isinstance(inner, list) and inner and isinstance(inner[0], Inner):
            for i, one in enumerate(inner):
                yield from _extras(one, f"{where}[{i}].")


def finite(logprob: float) -> float:
    """As JSON can carry it: what is impossible, or no number, is merely very unlikely."""
    return max(LEAST_LOGPROB, logprob)


def usage_body(usages: list[Usage], reasoning_tokens: int = 0) -> dict[str, Any]:
    """The usage block; with several choices of one prompt, the prompt counts once."""
    prompt, cached = usages[0].prompt_tokens, usages[0].cached_tokens
    completion = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
