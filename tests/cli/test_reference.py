"""CLI.md is what the commands are, and all of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from server.cli import app
from server.cli.reference import PATH, commands, reference

TEXT = PATH.read_text(encoding="utf-8")


def section(name: str) -> str:
    found = re.search(rf"^## `{name}`\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found, name
    return found[1]


def parsed(name: str) -> Any:
    """The command as the parser has it."""
    command: Any = typer.main.get_command(app)
    for word in name.split()[1:]:
        command = command.commands[word]
    return command


def test_it_is_up_to_date() -> None:
    assert reference() == TEXT, "run python -m server.cli.reference"


@pytest.mark.parametrize("name", [name for name, _ in commands(app)])
def test_it_has_what_the_parser_takes(name: str) -> None:
    text = section(name)
    for one in parsed(name).params:
        if one.param_type_name == "option":
            for flag in (*one.opts, *one.secondary_opts):
                assert re.search(rf"[`, ]{re.escape(flag)}[`, ]", text), flag
    documented = set(re.findall(r"^\| `(?:.*?, )?(--[a-z-]+)", text, re.MULTILINE))
    known = {flag for one in parsed(name).params for flag in (*one.opts, *one.secondary_opts)}
    assert documented <= known


def test_every_command_is_in_it() -> None:
    names = {name.removeprefix("ingle ") for name, _ in commands(app)}
    wanted = "serve run pull list ps show rm load stop bench tune doctor completion version"
    assert {*wanted.split(), "config show", "config schema"} <= names


LISTINGS = ("list", "show", "ps", "doctor", "config show", "version", "bench", "tune", "run")


@pytest.mark.parametrize("name", LISTINGS)
def test_what_lists_something_lists_it_as_json(name: str) -> None:
    assert "| `--json` |" in section(f"ingle {name}")
