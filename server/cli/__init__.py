"""The `ingle` command. Commands import what they need when they run: --help is instant."""

from __future__ import annotations

import typer

from server.core.errors import IngleError

from .bench import bench
from .completion import completion
from .config import config
from .doctor import doctor
from .listing import list_models
from .pull import pull
from .remove import rm
from .run import run
from .running import cancel, load, ps, reload, stop
from .serve import serve
from .show import show
from .tune import tune
from .version import show_version, version

app = typer.Typer(
    name="ingle",
    help="Serve small language models on your own hardware, behind the OpenAI API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(show_version)
app.command("serve")(serve)
app.command("run")(run)
app.command("pull")(pull)
app.command("list")(list_models)
app.command("ls", hidden=True)(list_models)
app.command("show")(show)
app.command("rm")(rm)
app.command("ps")(ps)
app.command("load")(load)
app.command("stop")(stop)
app.command("cancel")(cancel)
app.command("reload")(reload)
app.command("tune")(tune)
app.command("bench")(bench)
app.command("doctor")(doctor)
app.add_typer(config)
app.command("completion")(completion)
app.command("version")(version)


def main() -> None:
    try:
        app(prog_name="ingle")
    except IngleError as error:
        typer.echo(f"error: {error.message}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
