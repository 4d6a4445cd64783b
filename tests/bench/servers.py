"""Starting and stopping the servers to measure: real processes on a free port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from server.bench.client import first_model, get
from server.bench.http import Endpoint, HttpError
from server.bench.run import Server

START_SECONDS = 120.0
STOP_SECONDS = 15.0


class DidNotStart(Exception):
    pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@asynccontextmanager
async def ingle(
    model: str, options: Sequence[str] = (), home: Path | None = None
) -> AsyncIterator[Server]:
    """`ingle serve`; no setting of this user's reaches it when it gets a `home` of its own."""
    port = free_port()
    words = [sys.executable, "-m", "server", "serve", model, "--port", str(port), *options]
    async with _running(words, port, "/readyz", environ(home)) as server:
        yield server


@asynccontextmanager
async def llama_server(
    binary: Path, model: Path, *, slots: int, context: int, threads: int
) -> AsyncIterator[Server]:
    """Its -c is of all slots together; with -np given every slot has a KV stream of its own."""
    port = free_port()
    words = [str(binary), "-m", str(model), "--host", "127.0.0.1", "--port", str(port)]
    words += ["-t", str(threads), "-np", str(slots), "-c", str(slots * context), "--jinja"]
    async with _running(words, port, "/health", dict(os.environ)) as server:
        yield server


@asynccontextmanager
async def _running(
    words: Sequence[str], port: int, health: str, environ: dict[str, str]
) -> AsyncIterator[Server]:
    endpoint = Endpoint.parse(f"http://127.0.0.1:{port}/v1")
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *words, env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            try:
                await _until_ready(process, endpoint.root, health)
            except DidNotStart as error:
                log.seek(0)
                tail = log.read()[-2000:].decode(errors="replace")
                raise SystemExit(f"error: {' '.join(words)}: {error}\n{tail}") from None
            yield Server(endpoint, await first_model(endpoint))
        finally:
            await _stop(process)


async def _until_ready(process: asyncio.subprocess.Process, root: Endpoint, health: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.returncode is not None:
            raise DidNotStart(f"exit code {process.returncode}")
        try:
            await get(root, health)
            return
        except HttpError:
            await asyncio.sleep(0.05)
    raise DidNotStart(f"not ready after {START_SECONDS:.0f} s")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def environ(home: Path | None) -> dict[str, str]:
    if home is None:
        return dict(os.environ)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("INGLE_")}
    for variable, folder in (("XDG_DATA_HOME", "data"), ("XDG_CONFIG_HOME", "config")):
        kept[variable] = str(home / folder)
    return kept | {"XDG_CACHE_HOME": str(home / "cache")}
