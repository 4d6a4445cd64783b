"""A client on a bare socket, who leaves as clients do."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from tests.e2e.conftest import Server

RESET, CLOSE, HALF_CLOSE = "reset", "close", "half-close"


class Client:
    """Sends one chat request; `leave` goes without a word."""

    def __init__(self, server: Server, said: str, *, buffer: int = 0, **more: Any) -> None:
        messages = [{"role": "user", "content": said}]
        body = json.dumps(
            {"model": "echo", "messages": messages, "temperature": 0, **more}
        ).encode()
        self._socket = socket.socket()
        if buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._socket.settimeout(20)
        self._socket.connect(("127.0.0.1", server.port))
        self._socket.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/json\r\n"
            b"Authorization: Bearer " + server.key.encode() + b"\r\n"
            b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )
        self.heard = b""

    def hear(self, what: bytes) -> None:
        """Read until it was said."""
        while what not in self.heard:
            piece = self._socket.recv(4096)
            assert piece, self.heard
            self.heard += piece

    def leave(self, how: str) -> None:
        """With RST, with FIN, or with the FIN of one direction only."""
        if how == HALF_CLOSE:
            self._socket.shutdown(socket.SHUT_WR)
            return
        if how == RESET:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._socket.close()
