"""What the text of an answer must be: response_format, and the spellings of other servers."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Struct
from pydantic import Field

from server.core.errors import InvalidRequest, UnsupportedParameter

from .common import Inner, RequestBody

MAX_CHOICES = 4096


class Structure(Struct, frozen=True):
    """One constraint on the visible text; `param` is the field it came from.

    `value` is a JSON Schema (json), nothing (object: any JSON object), a pattern (regex), the
    texts to choose from (choice), or a grammar as llama.cpp's are written (gbnf). Where it is not
    `strict`, keywords of a schema that cannot be enforced are left out instead of refused.
    """

    kind: Literal["json", "object", "regex", "choice", "gbnf"]
    value: Any
    param: str
    strict: bool = True


Schema = dict[str, Any] | str
"""A JSON Schema, or the text of one."""
_Choices = Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MAX_CHOICES)]


class NamedSchema(Inner):
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None
    """`true` refuses keywords that cannot be enforced; else `x-ignored-params` names them."""


class ResponseFormat(Inner):
    """`schema` beside the type is what llama.cpp, Together and others read."""

    type: str = Field(json_schema_extra={"enum": ["text", "json_object", "json_schema"]})
    json_schema: NamedSchema | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")

    def structure(self) -> Structure | None:
        if self.type == "text":
            return None
        if self.type == "json_object":
            return _any_object(self.schema_)
        if self.type != "json_schema":
            raise InvalidRequest(
                f"Invalid 'response_format.type': {self.type[:32]!r} is none of 'text',"
                " 'json_object' and 'json_schema'.",
                param="response_format.type",
            )
        if self.json_schema is None and self.schema_ is None:
            raise InvalidRequest(
                "Missing required parameter: 'response_format.json_schema'.",
                param="response_format.json_schema",
                code="missing_required_parameter",
            )
        if self.json_schema is None:
            return _any_object(self.schema_)
        return _any_object(self.json_schema.schema_, strict=bool(self.json_schema.strict))


def _any_object(schema: dict[str, Any] | None, *, strict: bool = False) -> Structure:
    if not schema:
        return Structure("object", None, "response_format")
    return Structure("json", schema, "response_format", strict)


class StructuredOutputs(Inner):
    """vLLM's. Exactly one of the fields says what the answer must be."""

    ignored: ClassVar[dict[str, str]] = {
        "disable_fallback": "there is one way",
        "backend": "there is one",
    }
    """How another server is to do it, not what the answer must be."""

    json_: Schema | None = Field(None, alias="json")
    regex: str | None = None
    choice: _Choices | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def structures(self) -> list[Structure]:
        for name, value in (self.model_extra or {}).items():
            if value not in (None, False) and name not in self.ignored:
                raise UnsupportedParameter(
                    f"Unsupported parameter: 'structured_outputs.{name[:32]}' is not supported by"
                    " this server. Use json, regex, choice, grammar or json_object.",
                    param=f"structured_outputs.{name[:32]}",
                )
        found = _given("structured_outputs.", self.json_, self.regex, self.choice, self.grammar)
        if self.json_object:
            found.append(Structure("object", None, "structured_outputs.json_object"))
        return found


class StructureFields(RequestBody):
    """The request fields that constrain the answer's text. At most one of them may be given."""

    response_format: ResponseFormat | None = None
    json_schema: Schema | None = None
    grammar: str | None = None
    guided_json: Schema | None = None
    guided_regex: str | None = None
    guided_choice: _Choices | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None

    @property
    def gbnf(self) -> str | None:
        """A grammar as llama.cpp's are written, in any of its fields."""
        other = self.structured_outputs.grammar if self.structured_outputs else None
        return self.grammar or self.guided_grammar or other

    def constraints(self) -> list[Any]:
        """The fields as they are, right or wrong."""
        given = (getattr(self, name) for name in StructureFields.model_fields)
        return [value for value in given if value is not None]

    def structure(self) -> Structure | None:
        """Raises InvalidRequest where the fields contradict each other or themselves."""
        found = _given("", self.json_schema, None, None, self.grammar, json_name="json_schema")
        found += _given(
            "guided_", self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar
        )
        if self.structured_outputs:
            found += self.structured_outputs.structures()
        if self.response_format and (structure := self.response_format.structure()):
            found.append(structure)
        if len(found) > 1:
            first, second = sorted(structure.param for structure in found)[:2]
            raise InvalidRequest(
                f"Invalid '{second}': '{first}' already says what the answer must be."
                " Send one of them.",
                param=second,
            )
        return found[0] if found else None


def _given(
    prefix: str,
    schema: Schema | None,
    regex: str | None,
    choice: list[str] | None,
    grammar: str | None,
    *,
    json_name: str = "json",
) -> list[Structure]:
    """Empty strings are what forms send for nothing."""
    found = []
    if schema not in (None, ""):
        param = prefix + json_name
        found.append(Structure("json", _read(schema, param), param))
    if regex:
        found.append(Structure("regex", regex, f"{prefix}regex"))
    if choice:
        found.append(Structure("choice", tuple(choice), f"{prefix}choice"))
    if grammar:
        found.append(Structure("gbnf", grammar, f"{prefix}grammar"))
    return found


def _read(schema: Schema | None, param: str) -> Any:
    if not isinstance(schema, str):
        return schema
    try:
        return json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"Invalid '{param}': it is no JSON ({error}). Send the schema itself.",
            param=param,
            code="invalid_json_schema",
        ) from None
