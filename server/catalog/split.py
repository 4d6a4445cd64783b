"""Models in several files, FILE-00001-of-00003.gguf: the first describes them all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from server.core.errors import ModelFileError

from .gguf import GGUFHeader, read_header, read_part
from .quants import is_first, split_parts


def model_files(path: Path) -> list[Path]:
    """All files of the model that `path` is, or is the first part of."""
    return [path.with_name(name) for name in split_parts(path.name)]


def read_model(path: Path, *, label: str | None = None) -> GGUFHeader:
    """Check every file of the model; sizes and parameters are those of the whole.

    Raises ModelFileError.
    """
    files = model_files(path)
    if len(files) > 1 and path != files[0]:
        raise ModelFileError(f"{path} is a later part of a model; give the first, {files[0].name}")
    header = read_header(path, label=label)
    parameters = sum(check_part(file) for file in files[1:])
    return replace(
        header,
        parameters=header.parameters + parameters,
        size=header.size + sum(file.stat().st_size for file in files[1:]),
    )


def check_file(path: Path, name: str, *, label: str) -> None:
    """Check a file that is to be called `name`, be it a model or a part. Raises ModelFileError."""
    if is_first(name) or len(split_parts(name)) == 1:
        read_header(path, label=label)
    else:
        check_part(path, label=label)


def check_part(path: Path, *, label: str | None = None) -> int:
    """Check a later part, which names no architecture. Returns its parameters.

    Raises ModelFileError.
    """
    if not path.exists():
        raise ModelFileError(
            f"{label or path} is missing; a split model needs all its parts, fetch or copy it again"
        )
    return read_part(path, label=label)
