"""HTTP by the byte, as no client library would send it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx2
import psutil

from tests.e2e.conftest import Server

CHAT = "/v1/chat/completions"
HI = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def error(self) -> dict[str, Any]:
        """What is in the envelope, which must be one and nothing else."""
        assert self.headers["content-type"] == "application/json", self
        assert self.headers["x-request-id"]
        found = json.loads(self.body)
        assert set(found) == {"error"}, found
        assert set(found["error"]) == {"message", "type", "param", "code"}
        assert found["error"]["message"]
        return dict(found["error"])


class Raw:
    """A connection. What was received and not yet read stands in `rest`."""

    def __init__(self, server: Server, seconds: float = 10) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=seconds)
        self.rest = b""

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """All of it, or as much as the server takes before it closes."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def answer(self) -> Answer:
        """The next one, which has a length or no body."""
        head = self.until(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        number = int(status.split()[1])
        body = b"" if number < 200 else self._take(int(headers.get("content-length", 0)))
        return Answer(number, headers, body)

    def is_closed(self) -> bool:
        """Whether the server closes now, and says nothing more."""
        try:
            return not self.rest and self.socket.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def answers_on(self) -> None:
        """The connection is as good as new."""
        self.send(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert self.answer().status == 200

    def until(self, end: bytes) -> bytes:
        while end not in self.rest:
            self._more()
        found, _, self.rest = self.rest.partition(end)
        return found

    def _take(self, size: int) -> bytes:
        while len(self.rest) < size:
            self._more()
        found, self.rest = self.rest[:size], self.rest[size:]
        return found

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"closed after {self.rest!r}")
        self.rest += data


def posted(body: bytes, *headers: str, path: str = CHAT) -> bytes:
    """A whole request; `headers` beside the usual ones."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def loop_seconds(server: Server) -> float:
    """Of CPU time that the API's event loop has had, in steps of 10 ms. Unlike the clock's time it
    holds nothing of what the machine does beside."""
    process = psutil.Process(server.process.pid)
    (loop,) = (thread for thread in process.threads() if thread.id == process.pid)
    return float(loop.user_time + loop.system_time)


class Neighbour:
    """A stream beside, whose text must come whole, and without a pause that the loop is to blame
    for: it did other things so long."""

    text = "what a neighbour is told meanwhile"

    def __init__(self, server: Server, model: str) -> None:
        self._server = server
        self._model = model
        self._began = threading.Event()
        self.heard = ""
        self.gaps: list[float] = []

    def run(self) -> None:
        messages = [{"role": "user", "content": self.text}]
        body = {"model": self._model, "messages": messages, "temperature": 0, "stream": True}
        with httpx2.stream("POST", self._server.base + CHAT, json=body, timeout=30) as answer:
            last = loop_seconds(self._server)
            for line in answer.iter_lines():
                if not line.startswith("data: {"):
                    continue
                now = loop_seconds(self._server)
                self.gaps.append(now - last)
                last = now
                for choice in json.loads(line[6:])["choices"]:
                    self.heard += choice["delta"].get("content") or ""
                if self.heard:
                    self._began.set()

    @contextlib.contextmanager
    def beside(self, most: float) -> Iterator[None]:
        """While the block runs, it hears; afterwards all is checked. `most` is of a gap, in seconds
        of the loop's time."""
        hearing = threading.Thread(target=self.run, daemon=True)
        hearing.start()
        assert self._began.wait(10)
        yield
        hearing.join(20)
        assert self.heard == self.text, "it waits for something that takes no time of the CPU"
        assert max(self.gaps[1:]) < most, max(self.gaps[1:])
