"""What a process imports is what it can be broken by: checked in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _imported_by(module: str) -> set[str]:
    """The top-level packages in memory after importing `module` alone."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["server.app", "server.cli"])
def test_the_api_process_never_loads_llama_cpp(module: str) -> None:
    assert not {"llama_cpp", "llguidance"} & _imported_by(module)


def test_the_engine_process_never_loads_a_web_framework() -> None:
    imported = _imported_by("server.engine.worker")
    assert "msgspec" in imported
    assert not {"fastapi", "starlette", "uvicorn", "pydantic", "prometheus_client"} & imported


def test_the_hinge_needs_only_msgspec() -> None:
    imported = _imported_by("server.core.protocol, server.core.errors, server.core.stats")
    assert "msgspec" in imported
    assert not {"pydantic", "numpy", "fastapi", "llama_cpp"} & imported
