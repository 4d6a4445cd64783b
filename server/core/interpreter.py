"""Other processes of Python that run this very code, whatever directory they start in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_ROOT = str(Path(__file__).parents[2])


def same_code(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment in which `-m server.…` is ours: Python would look in the current directory
    first, and a person's own `server.py` may lie there."""
    path = os.pathsep.join(filter(None, (_ROOT, environ.get("PYTHONPATH"))))
    return {**environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
