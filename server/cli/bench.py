"""`ingle bench`: load on any OpenAI-compatible server, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from server.bench.cases import Workload
    from server.bench.report import Row


def bench(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Base URL of the API, with its /v1.")
    ] = "http://127.0.0.1:8000/v1",
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: the first of /models.")
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CASE",
            show_default=False,
            help="chat, shared-prefix, multi-turn, intrusion, copy, json-schema, json-list, "
            "logprobs or all; may be repeated. Default: chat.",
        ),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(metavar="N,N…", help="Clients at once. Default for chat: 1,2,4,8."),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Conversations a run. Default: by case and clients."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Limit of an answer. Default: by case.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of the prompts. Default: another one each time."),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY", envvar="INGLE_API_KEY", help="Sent to the server.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Measure an OpenAI-compatible server: throughput, first token, gaps, cached prompts, errors.

    A seed that a server has seen finds its prompts cached: repeat one only after a restart.
    """
    import asyncio
    import secrets

    from server.bench.http import Endpoint
    from server.bench.sweep import Sweep, points
    from server.core.errors import ConfigError

    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude each other; pass one of them")
    sweep = Sweep(
        points(case or ["chat"], concurrency),
        seed=secrets.randbelow(10**6) if seed is None else seed,
        requests=requests,
        max_tokens=max_tokens,
    )
    measured = sweep.run(Endpoint.parse(url, api_key), model, _announce)
    server, rows = asyncio.run(measured)
    if as_json:
        typer.echo(_json(url, server.model, sweep.seed, rows))
    elif as_csv:
        from server.bench.report import as_csv as to_csv

        typer.echo(to_csv(rows), nl=False)
    else:
        _print(url, server.model, sweep.seed, rows)
    if any(row.errors for row in rows):
        raise typer.Exit(1)


def _announce(workload: Workload) -> None:
    sizes = f"{workload.clients} clients, {len(workload.sessions)} conversations"
    typer.echo(f"{workload.case}: {sizes}", err=True)


def _json(url: str, model: str, seed: int, rows: list[Row]) -> str:
    import platform
    from datetime import UTC, datetime

    from server.bench.report import as_json

    about = {
        "url": url,
        "model": model,
        "seed": seed,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "client": platform.platform(),
    }
    return as_json(about, rows)


def _print(url: str, model: str, seed: int, rows: list[Row]) -> None:
    from rich.console import Console

    from server.bench.tables import tables

    console = Console()
    console.print(f"{model} at {url}, seed {seed}", highlight=False)
    console.print(tables(rows))
