"""What is under deploy/, tried with the programs it is for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import start

__all__ = ["start"]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

Program = Callable[[str], str]


def found(name: str, package: str) -> str:
    """The path of a program; without it the test is skipped, but never in CI."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        assert "CI" not in os.environ, f"CI installs {package}"
        pytest.skip(f"there is no {name}; on Debian: apt install {package}")
    return path
