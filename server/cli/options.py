"""Options that several commands share. None means not given: the settings decide."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file (TOML). Default: ./ingle.toml, then ~/.config/ingle/config.toml, "
        "then /etc/ingle/config.toml.",
    ),
]
ModelsDir = Annotated[
    Path | None,
    typer.Option(
        "--models-dir",
        metavar="DIR",
        help="Where model files are kept. Default: ~/.local/share/ingle/models.",
    ),
]
