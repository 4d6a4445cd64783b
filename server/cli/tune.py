"""`ingle tune`: what is fastest on this machine, measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .names import known_models
from .options import Config, ModelsDir

if TYPE_CHECKING:
    from server.catalog import ResolvedModel
    from server.llama.probe import Format
    from server.tune import Profile, ProfileStore, Report
    from server.tune.tuner import Plan


def tune(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=known_models,
            help="Catalogue name or path to a .gguf file.",
        ),
    ],
    goal: Annotated[
        Literal["latency", "throughput"],
        typer.Option("--for", help="One user's answer, or the answers of eight users at once."),
    ] = "throughput",
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT,…",
            show_default=False,
            help="Weight formats to try, or none. Default: those that may pay on this processor.",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, max=99, help="How often each is measured.")
    ] = 3,
    revert: Annotated[
        bool, typer.Option("--revert", help="Remove the tuned profile and its weights.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and do not ask.")] = False,
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """Measure what computes a model fastest here, and let `ingle serve` use it.

    Tries weight formats, threads, flash attention, KV types and micro-batches. A gain under 5 % or
    answers that differ too much keep the file as it is.
    """
    from server.core.errors import ConfigError
    from server.settings import load_settings
    from server.tune import ProfileStore
    from server.tune.machine import this_machine
    from server.tune.tuner import Plan

    from .serve import configure_logs, prepare

    settings = load_settings({"models": (model,), "models_dir": models_dir}, config)
    configure_logs(settings)
    (resolved,) = prepare(settings, fetch_missing=not revert)
    if resolved.header.kind != "generate":
        raise ConfigError(f"{model} generates no text; tune is for models that do")
    store = ProfileStore(settings.models_dir, resolved.path, this_machine())
    if revert:
        _revert(resolved.name, store, ask=not yes, as_json=as_json)
        return
    formats = _formats(weights, resolved.header.quantisation)
    plan = Plan(goal, formats, rounds=rounds, gpu_layers=settings.gpu_layers)
    kept = _tune(resolved, store, plan, ask=not (yes or as_json), as_json=as_json)
    if kept and not as_json:
        typer.echo(f"`ingle serve {model}` uses it; `ingle tune {model} --revert` removes it.")


def _tune(
    model: ResolvedModel, store: ProfileStore, plan: Plan, *, ask: bool, as_json: bool
) -> bool:
    """Whether a profile is kept."""
    from server.tune.keeping import keep

    from .tune_report import where

    with store.exclusively():
        report = _measure(model, store, plan)
        if not as_json:
            _show(report)
        wanted = report.choice is None or not ask or _agreed("Serve it so from now on?")
        profile = keep(report, model.path, store) if wanted else None
    if as_json:
        typer.echo(_json(report, profile, store))
    elif not wanted:
        typer.echo("Nothing was changed.")
    else:
        for line in where(profile, store):
            typer.echo(line)
    return profile is not None


def _measure(model: ResolvedModel, store: ProfileStore, plan: Plan) -> Report:
    from server.tune.prober import Prober
    from server.tune.tuner import Tuner

    from .stages import show_stages

    prober = Prober()
    try:
        with show_stages(model.name) as progress:
            return Tuner(model, store, plan, prober=prober, progress=progress).run()
    finally:
        prober.close()


def _formats(wanted: str | None, quantisation: str) -> tuple[Format, ...]:
    from typing import get_args

    from server.core.errors import ConfigError
    from server.llama.probe import Format
    from server.tune.candidates import formats_for
    from server.tune.machine import cpu_flags, cpu_info

    if wanted is None:
        return tuple(formats_for(quantisation, cpu_flags(cpu_info())))
    known: dict[str, Format] = {name: name for name in get_args(Format)}
    names = [name.strip().upper() for name in wanted.split(",")]
    if names == ["NONE"]:
        return ()
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown format {name}; --weights takes none, {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(names) if name != quantisation)


def _revert(model: str, store: ProfileStore, *, ask: bool, as_json: bool) -> None:
    removed: list[Path] = []
    with store.exclusively():
        profiles = store.revertible()
        going = [*profiles, *store.unnamed_without(profiles)]
        if going and ask:
            for path in going:
                typer.echo(f"  {path}", err=True)
            _must_agree(f"Remove what tuning {model} left?")
        if going:
            removed = store.revert(profiles)
    if as_json:
        import json

        typer.echo(json.dumps({"removed": [str(path) for path in removed]}, indent=2))
        return
    for path in removed:
        typer.echo(f"removed {path}")
    if not removed:
        typer.echo(f"{model} is not tuned on this machine")


def _show(report: Report) -> None:
    from rich.console import Console

    from .tune_report import heading, sentences, table

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200
    console.print(heading(report), soft_wrap=True)
    console.print()
    console.print(table(report))
    console.print()
    for sentence in sentences(report):
        console.print(sentence, soft_wrap=True)


def _json(report: Report, profile: Profile | None, store: ProfileStore) -> str:
    import msgspec

    content = msgspec.to_builtins(report)
    content["profile"] = str(store.path) if profile else None
    content["weights"] = (
        str(store.weights_path(profile.weights.name)) if profile and profile.weights else None
    )
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()


def _agreed(question: str) -> bool:
    """Off a terminal nobody can be asked: who runs `tune` there wants its result."""
    import sys

    return not sys.stdin.isatty() or typer.confirm(question, default=True, err=True)


def _must_agree(question: str) -> None:
    import sys

    from server.core.errors import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError("nothing was removed: add --yes to remove these files")
    if not typer.confirm(question, default=False, err=True):
        raise typer.Exit(1)
