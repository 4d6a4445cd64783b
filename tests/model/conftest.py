"""A real server on the default model, started once for the tier."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import psutil
import pytest

from server.catalog import ModelStore, load_catalog
from server.settings import DEFAULT_MODEL, default_models_dir

sys.path.insert(0, str(Path(__file__).parents[2] / "models"))
import make_minilm

from .case import CONTEXT, SLOTS, Case, Serve
from .served import Served

START_SECONDS = 120


@pytest.fixture(scope="session")
def model_path() -> Path:
    models_dir = Path(os.environ.get("INGLE_MODELS_DIR") or default_models_dir())
    spec = load_catalog().find(DEFAULT_MODEL)
    assert spec is not None
    path = ModelStore(models_dir).path(spec)
    if not path.exists():
        subprocess.run([sys.executable, "-m", "server", "pull", DEFAULT_MODEL], check=True)
    return path


@contextlib.contextmanager
def serving(model_path: Path, *flags: str) -> Iterator[str]:
    """The address of a server of this model."""
    port = _free_port()
    command = [sys.executable, "-m", "server", "serve", str(model_path), "--port", str(port)]
    process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True)
    try:
        _wait_until_ready(process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=40) == 0


@pytest.fixture(scope="session")
def server_url(model_path: Path) -> Iterator[str]:
    with serving(model_path, "--slots", "8", "--ctx", "2048") as url:
        yield url


@pytest.fixture
def serve(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts servers that may have faults."""
    with contextlib.ExitStack() as stack:

        def started(faults: str = "", *, key: str = "none", **settings: str) -> Case:
            settings |= {"fault_injection": "true", "faults": faults}
            for name, value in settings.items():
                monkeypatch.setenv(f"INGLE_{name.upper()}", value)
            shape = ("--slots", str(SLOTS), "--ctx", str(CONTEXT), "--threads", "1")
            url = stack.enter_context(serving(model_path, *shape))
            port = url.rpartition(":")[2]
            found = next(p for p in psutil.Process().children() if port in p.cmdline())
            return Case(url, model_path, found, key)

        yield started


@pytest.fixture
def model(model_path: Path) -> str:
    return model_path.name.removesuffix(".gguf")


@pytest.fixture
def client(server_url: str) -> Iterator[openai.OpenAI]:
    with _client(server_url) as made:
        yield made


def _client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def smollm2(client: openai.OpenAI, model: str) -> Served:
    return Served(client, model)


@pytest.fixture(scope="session")
def qwen(qwen_path: Path) -> Iterator[Served]:
    with serving(qwen_path, "--slots", "4", "--ctx", "2048") as url, _client(url) as client:
        yield Served(client, qwen_path.name.removesuffix(".gguf"))


@pytest.fixture(params=["smollm2", "qwen"])
def served(request: pytest.FixtureRequest) -> Served:
    found: Served = request.getfixturevalue(request.param)
    return found


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


def _from_shared(*command: str) -> Path:
    """What a script in the shared folder beside the checkout brings; skipped without one."""
    script = Path(__file__).parents[3] / "shared" / command[0]
    if not script.exists():
        pytest.skip(f"{command[0]} is not beside this checkout")
    done = subprocess.run([script, *command[1:]], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def gemma_path() -> Path:
    return _from_shared("test-models/fetch", "gemma3-270m")


@pytest.fixture(scope="session")
def qwen_path() -> Path:
    return _from_shared("test-models/fetch", "qwen2.5-coder-0.5b")


@pytest.fixture(scope="session")
def templates_path() -> Path:
    return _from_shared("peer/llama-cpp-source") / "models" / "templates"


@pytest.fixture(scope="session")
def vocabulary_path() -> Path:
    return _from_shared("peer/llama-cpp-source") / "models" / "ggml-vocab-gpt-2.gguf"


@pytest.fixture(scope="session")
def word_pieces_path() -> Path:
    return _from_shared("peer/llama-cpp-source") / "models" / "ggml-vocab-bert-bge.gguf"


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    path = make_minilm.default_folder() / make_minilm.FILE
    if not path.exists():
        pytest.skip("all-MiniLM-L6-v2 was not made: run models/make_minilm.py")
    return path
