"""What a chat request wants of its answer, in the words the formats understand."""

from __future__ import annotations

from server.schemas.chat import ChatRequest, PromptRequest
from server.schemas.tools import ToolUse

from . import structure
from .formats.base import Ask, Tool
from .grammars import left_out


def ask_of(request: PromptRequest, body: str, *, lenient: bool) -> Ask:
    """`body` is as of Ask. Raises InvalidRequest naming the field.

    A forced call leaves no text that it could bind. Tools that must not be called are not shown to
    the model either.
    """
    use = request.tool_use()
    prefill = request.prefills()
    return Ask(
        tools=_tools(use) if use.mode != "none" else (),
        mode=use.mode,
        callable=use.callable,
        parallel=use.parallel,
        body=body if use.mode != "required" else "",
        thinking=request.thinking(),
        effort=request.effort(),
        reasoning_budget=request.budget(),
        lenient=lenient,
        variables=request.variables(),
        prefill=prefill,
        add_generation_prompt=request.add_generation_prompt is not False and not prefill,
    )


def body_of(request: ChatRequest) -> str:
    """Compiles a schema: not for the event loop. Raises InvalidRequest naming the field."""
    bound = request.structure()
    return structure.body_of(bound) if bound else ""


def not_enforced(request: ChatRequest) -> list[str]:
    """Of schemas that are not strict the keywords that are left out, by field and keyword."""
    use = request.tool_use()
    bound = request.structure()
    found = structure.left_out(bound) if bound else []
    for i, tool in enumerate(_tools(use) if use.mode != "none" else ()):
        if not tool.strict:
            param = f"{use.path.format(i)}.parameters"
            found += [f"{param}.{keyword}" for keyword in left_out(tool.parameters, param=param)]
    return found


def _tools(use: ToolUse) -> tuple[Tool, ...]:
    return tuple(
        Tool(
            name=function.name,
            parameters=function.schema_of_arguments(use.path.format(i)),
            description=function.description or "",
            strict=bool(function.strict),
        )
        for i, function in enumerate(use.functions)
    )
