"""`ingle run`: a conversation at the terminal, or one answer for a script."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .names import known_models
from .options import Config, ModelsDir
from .remote import Url

if TYPE_CHECKING:
    from .chat.conversation import Answer, Conversation
    from .chat.server_of import Served


def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=known_models,
            help="A name that `ingle list` shows, a path or a reference.",
        ),
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT",
            show_default=False,
            help="What to ask; what is piped in follows it. Without either a conversation begins.",
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="How the model shall answer.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="0 for the likeliest answer, higher for more.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Limit of an answer.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="The same seed, the same answer.")
    ] = None,
    think: Annotated[
        bool | None,
        typer.Option(help="Let the model think first, or not, if it can.", show_default=False),
    ] = None,
    hide_thinking: Annotated[
        bool, typer.Option("--hide-thinking", help="Do not show what it thinks.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one answer as JSON, with its figures.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print figures after one answer, to stderr.")
    ] = False,
    history: Annotated[
        bool,
        typer.Option(help="Keep what is typed for the next time.", show_default=False),
    ] = True,
    ctx: Annotated[
        str | None,
        typer.Option(metavar="TOKENS", help="Context of a server of its own. Default: what fits."),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N", help="Threads of a server of its own. Default: allowed cores."),
    ] = None,
    url: Url = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Key of the server. INGLE_API_KEY keeps it out of the process list.",
        ),
    ] = None,
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """Talk with a model, or get one answer: `cat notes.txt | ingle run MODEL "Summarise:"`.

    A server that runs and has the model is asked; else one is started for as long as this takes.
    """
    from .chat.conversation import Conversation
    from .chat.server_of import Wanted, server_of

    question = _question(prompt)
    _check_place(question, as_json=as_json)
    flags = {"ctx": ctx, "threads": threads}
    parameters = {
        "temperature": temperature,
        "max_tokens": max_tokens,
        "seed": seed,
        "think": think,
    }
    given = {name: value for name, value in parameters.items() if value is not None}
    with server_of(Wanted(model, url, api_key, flags, models_dir, config)) as served:
        talk = Conversation(served.name, system or "", given, chats=served.chats)
        if question is None:
            _converse(served, talk, hide_thinking=hide_thinking, history=history)
            return
        answer = _answer(served, talk, question, quiet=as_json, hide_thinking=hide_thinking)
    if as_json:
        typer.echo(_json(talk.model, answer))
    elif verbose:
        from .chat.screen import figures

        typer.echo(figures(answer), err=True)


def _question(words: list[str] | None) -> str | None:
    """None for a conversation. Raises ConfigError."""
    from server.core.errors import ConfigError

    asked = " ".join(words or ())
    piped = ""
    typed = sys.stdin is not None and sys.stdin.isatty()
    if sys.stdin is not None and not typed:
        try:
            piped = sys.stdin.buffer.read().decode().strip("\n")
        except UnicodeDecodeError:
            raise ConfigError("what is piped in is not UTF-8 text") from None
    question = "\n\n".join(part for part in (asked, piped) if part.strip())
    if not question and (words or not typed):
        raise ConfigError("nothing is asked: PROMPT and what is piped in are empty")
    return question or None


def _check_place(question: str | None, *, as_json: bool) -> None:
    from server.core.errors import ConfigError

    if question is None and as_json:
        raise ConfigError("--json is for one answer: give a PROMPT")
    if question is None and not sys.stdout.isatty():
        raise ConfigError("a conversation needs a terminal: give a PROMPT")


def _converse(served: Served, talk: Conversation, *, hide_thinking: bool, history: bool) -> None:
    from .chat.repl import Repl, open_session
    from .chat.screen import Screen

    screen = Screen(hide_thinking=hide_thinking)
    screen.note(
        f"{talk.model}; /help for help"
        if talk.chats
        else f"{talk.model} is a base model: it goes on with each text; /help for help"
    )
    Repl(served.server, talk, screen).run(open_session(history=history))


def _answer(
    served: Served, talk: Conversation, question: str, *, quiet: bool, hide_thinking: bool
) -> Answer:
    from .chat.screen import Screen

    if quiet:
        answer = talk.ask(served.server, question, lambda _piece, _thinking: None)
    else:
        screen = Screen(hide_thinking=hide_thinking)
        try:
            answer = talk.ask(served.server, question, screen.piece)
        finally:
            screen.end()
    if answer.stopped:
        raise KeyboardInterrupt
    return answer


def _json(model: str, answer: Answer) -> str:
    told: dict[str, Any] = {
        "model": model,
        "content": answer.text,
        "reasoning": answer.reasoning or None,
        "finish_reason": answer.reason,
        "prompt_tokens": answer.prompt_tokens,
        "cached_tokens": answer.cached_tokens,
        "completion_tokens": answer.tokens,
        "tokens_per_second": answer.rate and round(answer.rate, 2),
        "first_token_seconds": answer.first and round(answer.first, 4),
        "seconds": round(answer.seconds, 4),
    }
    return json.dumps(told, indent=2, ensure_ascii=False)
