"""A real server over echo engines, in processes of its own, watched until the last one is gone."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import openai
import psutil
import pytest

ROOT = Path(__file__).parents[2]
START_SECONDS = 30
STOP_SECONDS = 40
"""Above the 30 s that running answers are given to end."""


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Returns as soon as `holds()`; fails when it does not within the deadline."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


class Server:
    """One `serve_echo.py`. `knobs` are its models, `name=echo:rate=50` or `name=file.gguf`.

    From `path` its processes import first.
    """

    def __init__(
        self, knobs: tuple[str, ...], settings: dict[str, object], path: Path | None = None
    ) -> None:
        self.port = int(str(settings.get("port") or free_port()))
        self.base = f"http://127.0.0.1:{self.port}"
        self.key = str(settings.get("api_key", "none")).split(",")[0]
        environment = {name: v for name, v in os.environ.items() if not name.startswith("INGLE_")}
        environment |= {f"INGLE_{name.upper()}": str(value) for name, value in settings.items()}
        script = str(Path(__file__).with_name("serve_echo.py"))
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, script, str(self.port), *knobs],
            env=environment | {"PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, ROOT))))},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        self._seen: set[psutil.Process] = set()

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
        assert readable, "no ready line in time"
        assert self.process.stdout.readline() == "ready\n"
        self.engines()

    def engines(self) -> list[psutil.Process]:
        """Without what these have started themselves."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        self._seen.update(found)
        return [process for process in found if _is_engine(process)]

    def open_files(self) -> int:
        """Of the API process."""
        return int(psutil.Process(self.process.pid).num_fds())

    def ready(self) -> bool:
        return httpx2.get(f"{self.base}/readyz", timeout=5).status_code == 200

    def metrics(self) -> str:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx2.get(f"{self.base}/metrics", headers=headers, timeout=5).text

    def log(self) -> str:
        """All that its processes have written to standard error."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def metric(self, name: str, model: str = "echo") -> float:
        """Of all series of this name and model together."""
        text = self.metrics()
        start = f'{name}{{model_name="{model}"'
        found = [line for line in text.splitlines() if line.startswith(start)]
        assert found, name
        return sum(float(line.split()[-1]) for line in found)

    def outcomes(self) -> dict[str, float]:
        """Requests by how they ended; without ends that none had."""
        lines = self.metrics().splitlines()
        found = [line for line in lines if line.startswith("ingle_requests_finished_total")]
        counts = {
            line.split('outcome="')[1].split('"')[0]: float(line.split()[-1]) for line in found
        }
        return {outcome: count for outcome, count in counts.items() if count}

    def client(self, **more: object) -> openai.OpenAI:
        more.setdefault("api_key", self.key)
        return openai.OpenAI(base_url=f"{self.base}/v1", max_retries=0, timeout=30, **more)

    def async_client(self, **more: object) -> openai.AsyncOpenAI:
        given: dict[str, object] = {"api_key": self.key, "max_retries": 0, "timeout": 60, **more}
        return openai.AsyncOpenAI(base_url=f"{self.base}/v1", **given)

    def close(self) -> None:
        """Once it has stopped. What it wrote is shown when the test fails."""
        if "PYTEST_CURRENT_TEST" in os.environ:
            sys.stderr.write(self.log())
        self._log.close()

    def stop(self) -> int:
        """As an operator does; the exit code. A process that outlives it fails the test."""
        if self.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.engines()
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            _, alive = psutil.wait_procs(self._seen, timeout=2)
            for left in alive:
                left.kill()
            assert not alive, f"left behind: {alive}"


def _is_engine(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "server.engine.worker" in process.cmdline()
    return False


Start = Callable[..., Server]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def _serving() -> Iterator[Start]:
    servers: list[Server] = []

    def start(*knobs: str, path: Path | None = None, **settings: object) -> Server:
        server = Server(knobs or ("echo=echo:",), settings, path)
        servers.append(server)
        server.wait_until_ready()
        return server

    try:
        yield start
    finally:
        for server in servers:
            try:
                server.stop()
            finally:
                server.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers of the test's own."""
    with _serving() as start:
        yield start


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One for the tests that leave it as they found it; `slow` gives 50 tokens a second."""
    with _serving() as start:
        server = start(
            "echo=echo:draft",
            "slow=echo:rate=50",
            "golden=echo:rate=50",
            "org/golden=echo:rate=50",
            ctx=1024,
        )
        yield server
        assert server.stop() == 0


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client() as made:
        yield made
