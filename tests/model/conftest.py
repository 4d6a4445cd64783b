"""A real server on the default model, started once for the tier."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from server.catalog import ModelStore, load_catalog
from server.settings import DEFAULT_MODEL, default_models_dir

START_SECONDS = 60


@pytest.fixture(scope="session")
def model_path() -> Path:
    models_dir = Path(os.environ.get("INGLE_MODELS_DIR") or default_models_dir())
    spec = load_catalog().find(DEFAULT_MODEL)
    assert spec is not None
    path = ModelStore(models_dir).path(spec)
    if not path.exists():
        subprocess.run([sys.executable, "-m", "server", "pull", DEFAULT_MODEL], check=True)
    return path


@pytest.fixture(scope="session")
def server_url(model_path: Path) -> Iterator[str]:
    port = _free_port()
    command = [sys.executable, "-m", "server", "serve", str(model_path), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--slots", "8", "--ctx", "2048"], stdout=subprocess.PIPE, text=True
    )
    try:
        _wait_until_ready(process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=40) == 0


@pytest.fixture
def model(model_path: Path) -> str:
    return model_path.name.removesuffix(".gguf")


@pytest.fixture
def client(server_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server_url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def connect(server_url: str) -> Callable[[], openai.AsyncOpenAI]:
    """Makes an async client; to be closed in the event loop that uses it."""
    return lambda: openai.AsyncOpenAI(base_url=f"{server_url}/v1", api_key="none", max_retries=0)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[str]) -> None:
    """The banner's first line, which is printed when the model answers."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 0.2)[0]:
            line = process.stdout.readline()
            assert line, "the server ended while starting"
            if "is ready" in line:
                return
    raise TimeoutError("the server did not become ready")
