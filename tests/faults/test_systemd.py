"""A service manager hears when the server is ready, makes progress and stops."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Server, Start, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]


def _told(manager: socket.socket, wanted: str) -> list[str]:
    """All it was told, to the message with this line."""
    messages: list[str] = []
    while not any(wanted in message.split("\n") for message in messages):
        messages.append(manager.recv(4096).decode())
    return messages


def _environments(server: Server) -> list[dict[str, str]]:
    children = psutil.Process(server.process.pid).children(recursive=True)
    return [child.environ() for child in children]


def test_the_service_manager_hears_of_start_progress_and_stop(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(20)
        server = start("echo=echo:load=0.5", drain_seconds=7)
        before = _told(manager, "READY=1")
        assert before[0] == "STATUS=Loading 1 model"
        assert before[-1] == "READY=1\nSTATUS=Serving echo"
        os.kill(server.engines()[0].pid, signal.SIGKILL)
        until(lambda: server.metric("ingle_engine_restarts_total") == 1)
        for _ in range(3):
            _told(manager, "WATCHDOG=1")
        assert _environments(server)
        assert not any({"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(e) for e in _environments(server))
        assert server.stop() == 0
        stopping = _told(manager, "STOPPING=1")[-1].split("\n")
    assert stopping[1:] == [
        "STATUS=Stopping; 0 requests may end first",
        "EXTEND_TIMEOUT_USEC=9000000",
    ]


def test_a_server_that_hangs_stays_silent(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(20)
        server = start()
        _told(manager, "WATCHDOG=1")
        server.process.send_signal(signal.SIGSTOP)
        try:
            manager.settimeout(0.6)
            with pytest.raises(TimeoutError):
                for _ in range(20):
                    manager.recv(4096)
        finally:
            server.process.send_signal(signal.SIGCONT)
        manager.settimeout(20)
        _told(manager, "WATCHDOG=1")
