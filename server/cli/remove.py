"""`ingle rm`: of what is in the models directory, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .names import present_models
from .options import Config, ModelsDir

if TYPE_CHECKING:
    from server.catalog import ModelStore, Target


def rm(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            autocompletion=present_models,
            help="Names that `ingle list` shows.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    models_dir: ModelsDir = None,
    config: Config = None,
) -> None:
    """Remove models from the models directory, with what `ingle tune` made of them.

    What other programs have fetched is theirs to remove.
    """
    from server.catalog import locate

    from .pull import open_store
    from .units import in_bytes

    catalog, store = open_store(models_dir, config)
    removals = [(target, _files(target, store)) for target in locate(models, catalog, store)]
    if not yes:
        size = sum(path.lstat().st_size for _, files in removals for path in files)
        names = ", ".join(target.name for target, _ in removals)
        _ask(f"Remove {names} ({in_bytes(size)})?")
    for target, files in removals:
        _remove(target, files, store)
        typer.echo(f"{target.name} is removed")


def _files(target: Target, store: ModelStore) -> list[Path]:
    """Everything that goes with the model, or its unfinished download. Raises ConfigError."""
    from server.catalog.split import model_files
    from server.catalog.store import part_of, record_of
    from server.core.errors import ConfigError

    if target.found is not None:
        raise ConfigError(
            f"{target.name} belongs to {target.found.owner} ({target.path}); remove it there"
        )
    if not target.path.is_relative_to(store.directory.absolute()):
        raise ConfigError(
            f"{target.path} is not in the models directory {store.directory}; remove it yourself"
        )
    if target.missing is not None and target.spec is None:
        files = [*target.path.rglob("*.part"), *target.path.rglob("*.etag")]
    elif target.missing is None:
        files = [record_of(target.path), *model_files(target.path)]
    else:
        part = part_of(target.path)
        files = [part, part.with_name(f"{part.name}.etag")]
    there = [path for path in files if path.is_symlink() or path.is_file()]
    if not there:
        raise ConfigError(f"{target.name} is not here; `ingle list` shows what is")
    return there


def _remove(target: Target, files: list[Path], store: ModelStore) -> None:
    from filelock import FileLock, Timeout

    from server.catalog.store import lock_of
    from server.core.errors import ConfigError, ModelFileError

    lock = lock_of(target.path)
    try:
        with FileLock(lock, timeout=0):
            _forget_tuning(target, store)
            for path in files:
                path.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        _remove_empty(files[0].parent, store.directory.absolute())
    except Timeout:
        raise ConfigError(
            f"{target.name} is being fetched by another process; stop that first"
        ) from None
    except OSError as error:
        raise ModelFileError(
            f"cannot remove {error.filename or target.path}: {error.strerror or error}; "
            "check its permissions"
        ) from None


def _forget_tuning(target: Target, store: ModelStore) -> None:
    from server.tune import ProfileStore
    from server.tune.machine import this_machine

    if target.missing is None and target.path.is_file() and (store.directory / "tuned").is_dir():
        tuned = ProfileStore(store.directory, target.path, this_machine())
        tuned.revert(tuned.revertible())


def _remove_empty(folder: Path, root: Path) -> None:
    """Directories that held nothing else."""
    while folder != root and folder.is_relative_to(root) and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _ask(question: str) -> None:
    import sys

    from server.core.errors import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError("nothing was removed: add --yes to remove without being asked")
    if not typer.confirm(question, default=False, err=True):
        raise typer.Exit(1)
