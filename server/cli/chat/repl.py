"""The conversation at a terminal: questions, answers, and commands that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from server.core.errors import IngleError

from .conversation import PARAMETERS, Conversation
from .screen import Screen, figures, terminal_kept, unechoed

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from server.cli.remote import Remote

HELP = f"""\
/help               this
/clear              begin a new conversation
/system [TEXT]      show the system prompt, or set it; /system - removes it
/set [NAME VALUE]   show the parameters, or set one; without a value it is unset:
                    {", ".join(PARAMETERS)}
/retry              ask the last question again
/save FILE          write the conversation as JSON
/load FILE          go on with one
/bye                leave, as /exit, /quit and Ctrl-D do

Enter sends, Alt-Enter begins a new line. After \"\"\" Enter does too, until the next \"\"\".
Ctrl-C stops an answer; what came of it stays part of the conversation."""
_COMMANDS = tuple(line.split()[0] for line in HELP.splitlines() if line.startswith("/"))
PROMPT, CONTINUED = ">>> ", "... "
_FENCE = '"""'
_LEAVING = ("/bye", "/exit", "/quit")


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
            "/save": lambda name: self._with_file(name, self._conversation.save, "saved in"),
            "/load": lambda name: self._with_file(name, self._restore, "going on with"),
        }

    def run(self, session: PromptSession[str]) -> None:
        """Until the person leaves."""
        with terminal_kept():
            self._run(session)

    def _run(self, session: PromptSession[str]) -> None:
        while True:
            try:
                line = session.prompt(PROMPT, prompt_continuation=CONTINUED)
            except KeyboardInterrupt:
                self._screen.note("Ctrl-D or /bye leaves")
                continue
            except EOFError:
                return
            if line.strip() in _LEAVING:
                return
            with suppress(KeyboardInterrupt):
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
            typer.echo(f"error: {error.message}", err=True)

    def _command(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        command = self._commands.get(name)
        if command is None:
            from server.cli.words import did_you_mean

            close = did_you_mean(name, [*self._commands, *_LEAVING])
            typer.echo(f"there is no {name}{close}")
        else:
            command(rest.strip())

    def _ask(self, question: str) -> None:
        try:
            with unechoed():
                answer = self._conversation.ask(self._server, question, self._screen.piece)
        finally:
            self._screen.end()
        self._screen.note(f"{figures(answer)}\n")

    def _clear(self, _: str) -> None:
        self._conversation.messages.clear()
        self._screen.note("a new conversation")

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = "" if text == "-" else text
        typer.echo(self._conversation.system or "there is no system prompt")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name:
            self._conversation.set(name, value.strip())
        given = self._conversation.parameters
        for known in [name] if name else PARAMETERS:
            typer.echo(f"{known} = {_told(given.get(known))}")

    def _retry(self, _: str) -> None:
        before = list(self._conversation.messages)
        question = self._conversation.retract()
        if question is None:
            typer.echo("nothing was asked yet")
            return
        try:
            self._ask(question)
        except IngleError:
            self._conversation.messages = before
            raise

    def _restore(self, path: Path) -> None:
        self._conversation.restore(path)
        for message in self._conversation.messages:
            typer.echo()
            if message["role"] == "user":
                typer.echo(f"{PROMPT}{message['content']}")
            else:
                self._screen.piece(message["content"], False)
                self._screen.end()
        typer.echo()

    def _with_file(self, name: str, work: Callable[[Path], None], done: str) -> None:
        if not name:
            typer.echo("which file?")
            return
        work(Path(name))
        self._screen.note(f"{done} {name}")


def open_session(*, history: bool) -> PromptSession[str]:
    from prompt_toolkit import PromptSession

    return PromptSession(
        history=_history() if history else None,
        multiline=True,
        key_bindings=_keys(),
        completer=_completer(),
        complete_while_typing=False,
    )


def _history() -> History | None:
    """For its owner alone to read. None where it cannot be kept."""
    from prompt_toolkit.history import FileHistory

    from server.settings import state_dir

    path = state_dir() / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.open("a").close()
    except OSError as error:
        typer.echo(f"what is typed is not kept: {path}: {error.strerror}", err=True)
        return None
    return FileHistory(path)


def _completer() -> Completer:
    """Commands, and the names that /set knows."""
    from prompt_toolkit.completion import NestedCompleter

    names: dict[str, dict[str, None] | None] = dict.fromkeys(_COMMANDS)
    return NestedCompleter.from_nested_dict(names | {"/set": dict.fromkeys(PARAMETERS)})


def _keys() -> KeyBindings:
    """Enter sends, unless a fence is open; Alt-Enter never does."""
    from prompt_toolkit.filters import completion_is_selected
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("enter", filter=~completion_is_selected)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if _is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _is_open(text: str) -> bool:
    return text.lstrip().startswith(_FENCE) and text.count(_FENCE) == 1


def _unfenced(line: str) -> str:
    text = line.strip()
    if text.startswith(_FENCE):
        return text.removeprefix(_FENCE).removesuffix(_FENCE).strip("\n")
    return text


def _told(value: object) -> str:
    if value is None:
        return "as the model wants it"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
