"""`python -m server.cli.reference` writes server/CLI.md from the commands themselves."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

PATH = Path(__file__).parents[1] / "CLI.md"

_HEAD = """\
# Command line

Written by `python -m server.cli.reference` from the commands themselves; a test fails when it is
out of date. `ingle COMMAND --help` says the same.

Answers go to standard output, all else to standard error. With `--json` the answer is one JSON
value.

| exit code | meaning |
|---|---|
| 0 | it is done |
| 1 | it ran, and found something wrong, or was told not to go on |
| 2 | it could not: one line on standard error says why and what to do |
| 130 | Ctrl-C ended it |

`ps`, `load`, `stop`, `cancel`, `reload` and `run` ask a server that runs: the one at `--url`, else
at `INGLE_URL`, else where `host` and `port` of the settings say. All but `run` need its admin key,
if it has one; without one they work on its own machine.
"""


class _Parameter(NamedTuple):
    """`kind` is its type without None; `default` is None where it must be given, too."""

    name: str
    kind: Any
    info: ArgumentInfo | OptionInfo
    default: Any
    required: bool


def reference() -> str:
    """The whole text of CLI.md."""
    from . import app

    parts = [_HEAD]
    for name, command in commands(app):
        parts += [f"## `{name}`\n", *_described(name, command)]
    return "\n".join(parts).rstrip() + "\n"


def commands(app: typer.Typer, name: str = "ingle") -> Iterator[tuple[str, Callable[..., Any]]]:
    """All that are not hidden, with their names."""
    for command in app.registered_commands:
        if not command.hidden and command.callback is not None:
            yield f"{name} {command.name}", command.callback
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from commands(group.typer_instance, f"{name} {group.typer_instance.info.name}")


def _parameters(command: Callable[..., Any]) -> list[_Parameter]:
    hints = get_type_hints(command, include_extras=True)
    found = []
    for name, one in inspect.signature(command).parameters.items():
        kind, info = get_args(hints[name])[:2]
        required = one.default is inspect.Parameter.empty
        found.append(
            _Parameter(name, _bare(kind), info, None if required else one.default, required)
        )
    return found


def _bare(kind: Any) -> Any:
    if get_origin(kind) is types.UnionType:
        return next(one for one in get_args(kind) if one is not type(None))
    return kind


def _described(name: str, command: Callable[..., Any]) -> Iterator[str]:
    known = _parameters(command)
    arguments = [one for one in known if isinstance(one.info, ArgumentInfo)]
    options = [one for one in known if isinstance(one.info, OptionInfo)]
    yield f"`{' '.join([name, *map(_word, arguments), '[OPTIONS]'])}`\n"
    yield f"{inspect.getdoc(command)}\n"
    if arguments:
        yield _table("argument", ((_word(one), one) for one in arguments))
    if options:
        yield _table("option", ((_flags(one), one) for one in options))


def _word(argument: _Parameter) -> str:
    word = (argument.info.metavar or argument.name.upper()).rstrip(".…")
    if not argument.info.metavar and get_origin(argument.kind) is Literal:
        word = "|".join(get_args(argument.kind))
    more = "…" if get_origin(argument.kind) is list else ""
    return f"{word}{more}" if argument.required else f"[{word}{more}]"


def _flags(option: _Parameter) -> str:
    flags = _spelled(option)
    if option.kind is bool:
        return ", ".join(flags)
    choices = "|".join(get_args(option.kind)) if get_origin(option.kind) is Literal else None
    return f"{', '.join(flags)} {option.info.metavar or choices or option.name.upper()}"


def _spelled(option: _Parameter) -> list[str]:
    """Typer takes the first of the names that are given for a default."""
    given = [option.info.default, *(option.info.param_decls or ())]
    flags = [flag for flag in given if isinstance(flag, str)]
    spelled = f"--{option.name.replace('_', '-')}"
    return flags or [spelled, *([spelled.replace("--", "--no-", 1)] * (option.kind is bool))]


def _table(title: str, rows: Iterable[tuple[str, _Parameter]]) -> str:
    lines = [f"| {title} | what it is |", "|---|---|"]
    for shown, one in rows:
        lines.append(f"| `{_cell(shown)}` | {_cell(_told(one))} |")
    return "\n".join(lines) + "\n"


def _told(one: _Parameter) -> str:
    told = " ".join((one.info.help or "").split())
    if isinstance(one.default, bool) or one.default is None or "Default:" in told:
        return told
    return f"{told} Default: {one.default}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PATH.write_text(reference(), encoding="utf-8")
