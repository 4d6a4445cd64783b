"""What systemd would hear, on a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.systemd import Systemd

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["path", "abstract"])
def listening(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@ingle-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0", 1))
        sock.settimeout(5)
        yield sock, name


async def test_it_hears_of_each_state(listening: tuple[socket.socket, str]) -> None:
    sock, name = listening
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1", "OTHER": "x"}
    systemd = Systemd(environ)
    assert environ == {"OTHER": "x"}, "engines would inherit it"
    systemd.loading(1)
    systemd.ready(["a", "b"])
    systemd.stopping(2, 32.5)
    await systemd.watched(lambda: True)
    assert [sock.recv(4096).decode() for _ in range(3)] == [
        "STATUS=Loading 1 model",
        "READY=1\nSTATUS=Serving a, b",
        "STOPPING=1\nSTATUS=Stopping; 2 requests may end first\nEXTEND_TIMEOUT_USEC=32500000",
    ]
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(4096)


async def test_the_watchdog_hears_of_progress_alone(listening: tuple[socket.socket, str]) -> None:
    sock, name = listening
    environ = {
        "NOTIFY_SOCKET": name,
        "WATCHDOG_USEC": "20000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    answers = iter((True, False, True))
    done = asyncio.Event()

    def progressing() -> bool:
        answer = next(answers, None)
        if answer is None:
            done.set()
        return bool(answer)

    watched = asyncio.create_task(Systemd(environ).watched(progressing))
    async with asyncio.timeout(5):
        await done.wait()
    watched.cancel()
    assert [sock.recv(4096) for _ in range(2)] == [b"WATCHDOG=1"] * 2
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(4096)


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative", "/nowhere/notify"])
def test_where_nobody_listens_nothing_happens(address: str) -> None:
    Systemd({"NOTIFY_SOCKET": address}).ready(["a"])
