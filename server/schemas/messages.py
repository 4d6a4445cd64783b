"""The turns of a conversation as clients send them, those echoed from answers included."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.core.errors import InvalidRequest

Role = Literal["developer", "system", "user", "assistant", "tool", "function"]
_MAY_LACK_CONTENT = ("tool_calls", "function_call", "refusal")


def _as(roles: list[str], *names: str, **types: str) -> dict[str, Any]:
    """A message of `roles` that has one of `names` and each of `types`."""
    properties = {name: {"type": kind, "minLength": 1} for name, kind in types.items()}
    return {
        "properties": {"role": {"enum": roles}, **properties},
        "required": [*types],
        "anyOf": [{"required": [name]} for name in names],
    }


_BY_ROLE: dict[str, Any] = {
    "anyOf": [
        _as(["developer", "system", "user"], "content"),
        _as(["assistant"], "content", *_MAY_LACK_CONTENT),
        _as(["tool"], "content", tool_call_id="string"),
        _as(["function"], "content", name="string"),
    ]
}
_PARTS: dict[str, Any] = {
    "anyOf": [
        {
            "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
            "required": ["text"],
        },
        {"properties": {"type": {"const": "refusal"}}},
    ]
}
"""What a message and its parts must have, for the OpenAPI document."""


class _Nested(BaseModel):
    """What has no name here is accepted and not looked at."""

    model_config = ConfigDict(
        extra="allow", strict=True, frozen=True, use_attribute_docstrings=True
    )


class ContentPart(_Nested):
    model_config = ConfigDict(json_schema_extra={"allOf": [_PARTS]})

    type: str
    """`text`; of the assistant `refusal` too."""
    text: str | None = None


class FunctionCall(_Nested):
    name: str
    arguments: str | dict[str, Any] | None = None


class CustomCall(_Nested):
    name: str
    input: str | None = None


class ToolCall(_Nested):
    id: str | None = None
    function: FunctionCall | None = None
    custom: CustomCall | None = None

    def called(self, path: str) -> FunctionCall:
        """What was called; another server's custom call is a call with one argument."""
        if self.function is not None:
            return self.function
        if self.custom is not None:
            return FunctionCall(name=self.custom.name, arguments={"input": self.custom.input or ""})
        raise missing(f"{path}.function")


class Message(_Nested):
    model_config = ConfigDict(json_schema_extra={"allOf": [_BY_ROLE]})

    role: Role
    content: str | Annotated[list[ContentPart], Field(fail_fast=True, min_length=1)] | None = None
    name: str | None = None
    """Of what was called, in `tool` and `function` messages; of others it is ignored."""
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    """The older spelling of `tool_calls`."""
    refusal: Any = None
    """Text of the assistant where there is no content."""
    reasoning_content: Any = None
    """Given to the template if it is text."""
    reasoning: Any = None
    """The same as `reasoning_content`."""

    def text(self, path: str) -> str:
        """The content as one string; `path` names the message in errors."""
        if isinstance(self.content, str):
            return self.content
        if self.content is None:
            return self._no_content(path)
        return "\n".join(
            _part_text(part, f"{path}.content[{i}]") for i, part in enumerate(self.content)
        )

    def thought(self) -> str:
        """The reasoning echoed in this turn, in the spelling of this server or another."""
        return next((t for t in (self.reasoning_content, self.reasoning) if isinstance(t, str)), "")

    def _no_content(self, path: str) -> str:
        spoke = self.role == "assistant"
        allowed = spoke and any(getattr(self, name) for name in _MAY_LACK_CONTENT)
        if not allowed and "content" not in self.model_fields_set:
            raise missing(f"{path}.content")
        return self.refusal if spoke and isinstance(self.refusal, str) else ""


def missing(path: str) -> InvalidRequest:
    return InvalidRequest(
        f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter"
    )


def _part_text(part: ContentPart, path: str) -> str:
    if part.type == "refusal":
        return str((part.model_extra or {}).get("refusal") or "")
    if part.type != "text":
        raise InvalidRequest(
            f"'{path}' has type '{part.type[:32]}'; this model reads text only. Send text parts.",
            param=path,
            code="unsupported_content",
        )
    if part.text is None:
        raise missing(f"{path}.text")
    return part.text
