"""The conversation at a terminal: questions, answers, and commands that begin with a slash."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from server.core.errors import IngleError

from .conversation import PARAMETERS, Conversation
from .screen import Screen

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from server.cli.remote import Remote

HELP = """\
/help               this
/clear              begin a new conversation
/system [TEXT]      show the system prompt, or set it
/set [NAME VALUE]   show the parameters, or set one: {names}
/retry              ask the last question again
/save FILE          write the conversation as JSON
/load FILE          go on with one
/bye                leave (Ctrl-D does, too)

Enter sends; Alt-Enter begins a new line, and so does Enter between \"\"\" and \"\"\".
Ctrl-C stops an answer, which is kept as far as it came.""".replace(
    "{names}", ", ".join(PARAMETERS)
)
_FENCE = '"""'
_LEAVING = ("/bye", "/exit", "/quit")


def history_file(environ: dict[str, str] | None = None) -> Path:
    """Only its owner can read it."""
    given = environ if environ is not None else dict(os.environ)
    base = Path(given.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    path = base / "ingle" / "history"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    return path


class Repl:
    def __init__(self, server: Remote, conversation: Conversation, screen: Screen) -> None:
        self._server = server
        self._conversation = conversation
        self._screen = screen
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: typer.echo(HELP),
            "/?": lambda _: typer.echo(HELP),
            "/clear": self._clear,
            "/system": self._system,
            "/set": self._set,
            "/retry": self._retry,
            "/save": lambda name: self._with_file(name, self._conversation.save, "saved to"),
            "/load": lambda name: self._with_file(
                name, self._conversation.restore, "going on with"
            ),
        }

    def run(self, session: PromptSession[str]) -> None:
        """Until the person leaves."""
        while True:
            try:
                line = session.prompt(">>> ", prompt_continuation="... ")
            except KeyboardInterrupt:
                typer.echo("Ctrl-D or /bye leaves.")
                continue
            except EOFError:
                return
            if line.strip() in _LEAVING:
                return
            self.take(line)

    def take(self, line: str) -> None:
        """One command or question. What goes wrong is told, and the conversation stays."""
        text = _unfenced(line)
        if not text.strip():
            return
        try:
            if text.startswith("/") and "\n" not in text:
                self._command(text)
            else:
                self._ask(text)
        except IngleError as error:
            typer.echo(f"error: {error.message}\n", err=True)

    def _command(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        command = self._commands.get(name)
        if command is None:
            typer.echo(f"there is no {name}; /help lists what there is")
        else:
            command(rest.strip())

    def _ask(self, question: str) -> None:
        self._screen.end(self._conversation.ask(self._server, question, self._screen.piece))

    def _clear(self, _: str) -> None:
        self._conversation.messages.clear()
        typer.echo("a new conversation")

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = text
        typer.echo(self._conversation.system or "there is no system prompt")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name:
            self._conversation.set(name, value.strip())
        given = self._conversation.parameters
        for known in [name] if name else PARAMETERS:
            typer.echo(f"{known} = {given.get(known, 'as the model recommends')}")

    def _retry(self, _: str) -> None:
        question = self._conversation.retract()
        if question is None:
            typer.echo("nothing was asked yet")
        else:
            self._ask(question)

    def _with_file(self, name: str, work: Callable[[Path], None], done: str) -> None:
        if not name:
            typer.echo("which file?")
            return
        work(Path(name))
        typer.echo(f"{done} {name}")


def open_session(*, history: bool) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    kept = FileHistory(str(history_file())) if history else InMemoryHistory()
    return PromptSession(history=kept, multiline=True, key_bindings=_keys())


def _keys() -> KeyBindings:
    """Enter sends, unless a fence is open; Alt-Enter never does."""
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        text = buffer.text.strip()
        fenced = text.startswith(_FENCE) and not (len(text) > 5 and text.endswith(_FENCE))
        if fenced:
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _unfenced(line: str) -> str:
    text = line.strip()
    if len(text) > 5 and text.startswith(_FENCE) and text.endswith(_FENCE):
        return text[3:-3].strip("\n")
    return line.strip()
