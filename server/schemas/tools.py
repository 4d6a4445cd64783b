"""The tools a request offers, in the present spelling and the legacy one, and who may be called."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Struct
from pydantic import Field

from server.core.errors import InvalidRequest

from .common import Inner, RequestBody
from .messages import missing

MAX_TOOLS = 512
_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
Mode = Literal["none", "auto", "required"]


class FunctionTool(Inner):
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """A JSON schema of type `object`."""
    strict: bool | None = None
    """`true` refuses keywords that cannot be enforced; else `x-ignored-params` names them."""

    def schema_of_arguments(self, path: str) -> dict[str, Any]:
        if not self.parameters:
            return _PARAMETERS
        kind = self.parameters.get("type", "object")
        if kind != "object":
            raise InvalidRequest(
                f"Invalid '{path}.parameters': arguments are an object, but its type is {kind!r}."
                " Use a schema of type 'object'.",
                param=f"{path}.parameters",
                code="invalid_json_schema",
            )
        return {"type": "object", **self.parameters}


class ToolField(Inner):
    type: str | None = None
    """`function`."""
    function: FunctionTool | None = None

    def offered(self, path: str) -> FunctionTool:
        if self.type not in (None, "function"):
            raise InvalidRequest(
                f"Unsupported value: '{path}.type' is {self.type[:32]!r}; this server has tools of"
                " type 'function' only. Describe the tool as a function.",
                param=f"{path}.type",
                code="unsupported_value",
            )
        if self.function is None:
            raise missing(f"{path}.function")
        return self.function


class ToolUse(Struct, frozen=True):
    """`path` spells where a tool's function stands in the request, with `{}` for its number."""

    functions: tuple[FunctionTool, ...] = ()
    mode: Mode = "none"
    callable: frozenset[str] = frozenset()
    parallel: bool = True
    legacy: bool = False

    @property
    def path(self) -> str:
        return "functions[{}]" if self.legacy else "tools[{}].function"


class ToolFields(RequestBody):
    tools: Annotated[list[ToolField], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    """Tools of type `function`."""
    tool_choice: str | dict[str, Any] | None = None
    """`none`, `auto`, `required` (or `any`), one function, or `allowed_tools`."""
    parallel_tool_calls: bool | None = None
    """`false` allows one call at most."""
    functions: Annotated[list[FunctionTool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = (
        None
    )
    """The older spelling of `tools`; answered with `function_call`."""
    function_call: str | dict[str, Any] | None = None
    """The older spelling of `tool_choice`: `none`, `auto` or one function."""

    def tool_use(self) -> ToolUse:
        """Raises InvalidRequest for a choice of what is not offered."""
        tools = tuple(tool.offered(f"tools[{i}]") for i, tool in enumerate(self.tools or ()))
        if not self.functions:
            mode, names = _chosen(self.tool_choice, _names(tools, "tools[{}].function"))
            _legacy_chosen(self.function_call, frozenset())
            parallel = self.parallel_tool_calls is not False and not _names_one(self.tool_choice)
            return ToolUse(tools, mode, names, parallel)
        if tools:
            raise InvalidRequest(
                "Invalid 'functions': 'tools' already offers functions. Send one of them.",
                param="functions",
            )
        _chosen(self.tool_choice, frozenset())
        functions = tuple(self.functions)
        mode, names = _legacy_chosen(self.function_call, _names(functions, "functions[{}]"))
        return ToolUse(functions, mode, names, parallel=False, legacy=True)


def _names(functions: tuple[FunctionTool, ...], path: str) -> frozenset[str]:
    names: set[str] = set()
    for i, function in enumerate(functions):
        if function.name in names:
            where = path.format(i) + ".name"
            raise InvalidRequest(
                f"Invalid '{where}': there is another {function.name!r}. Names must differ.",
                param=where,
            )
        names.add(function.name)
    return frozenset(names)


def _names_one(choice: object) -> bool:
    return isinstance(choice, dict) and choice.get("type") == "function"


def _chosen(choice: object, offered: frozenset[str]) -> tuple[Mode, frozenset[str]]:
    match choice:
        case "none" | {"type": "none"}:
            return "none", frozenset()
        case None | "auto" | {"type": "auto"}:
            return ("auto" if offered else "none"), offered
        case "required" | "any" | {"type": "required" | "any"}:
            return "required", _offered(offered, offered, "tool_choice")
        case {"type": "function", "function": {"name": str(name)}}:
            return "required", _offered(frozenset([name]), offered, "tool_choice")
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as mode, "tools": [_, *_] as tools},
        }:
            names = frozenset(_name_of(tool) for tool in tools)
            return mode, _offered(names, offered, "tool_choice")
    raise InvalidRequest(
        f"Invalid 'tool_choice': {_shown(choice)} is none of 'none', 'auto', 'required', a function"
        ' as {"type": "function", "function": {"name": …}} and allowed_tools.',
        param="tool_choice",
    )


def _legacy_chosen(choice: object, offered: frozenset[str]) -> tuple[Mode, frozenset[str]]:
    match choice:
        case "none":
            return "none", frozenset()
        case None | "auto":
            return ("auto" if offered else "none"), offered
        case {"name": str(name)}:
            return "required", _offered(frozenset([name]), offered, "function_call")
    raise InvalidRequest(
        f"Invalid 'function_call': {_shown(choice)} is none of 'none', 'auto' and {{\"name\": …}}.",
        param="function_call",
    )


def _name_of(tool: object) -> str:
    match tool:
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
    raise InvalidRequest(
        f"Invalid 'tool_choice': {_shown(tool)} in allowed_tools names no function.",
        param="tool_choice",
    )


def _offered(wanted: frozenset[str], offered: frozenset[str], param: str) -> frozenset[str]:
    source = "functions" if param == "function_call" else "tools"
    if not offered:
        raise InvalidRequest(
            f"Invalid '{param}': there is nothing to call. Send '{source}', or remove '{param}'.",
            param=param,
        )
    if unknown := sorted(wanted - offered):
        raise InvalidRequest(
            f"Invalid '{param}': there is no function {unknown[0][:64]!r} in '{source}'.",
            param=param,
        )
    return wanted


def _shown(choice: object) -> str:
    return repr(choice)[:64]
