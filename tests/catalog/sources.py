"""A local stand-in for a model hub: real HTTP with Range, redirects, and faults on request."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "c0ffee" * 6 + "cafe"


class Hub:
    """Serves `content` under every path, and the Hub's API; the attributes are its faults.

    `repositories` holds the files of each repository. `drips`: seconds between single bytes.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.etags = ['"v1"']
        self.checksum: str | None = None
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.error_code: str | None = None
        self.location = "/storage"
        self.ignores_ranges = False
        self.shifts_ranges = 0
        self.claims: int | None = None
        self.names_length = True
        self.drips: float | None = None
        self.paths: list[str] = []
        self.ranges: list[str | None] = []
        self.tokens: list[str | None] = []
        self.storage_asked = threading.Event()
        self.over = threading.Event()
        self.url = ""

    @property
    def etag(self) -> str:
        return self.etags[0]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.paths.append(request.path)
        self.ranges.append(request.headers["Range"])
        self.tokens.append(request.headers["Authorization"])
        if self.statuses and (status := self.statuses.pop(0)) != 200:
            self._refuse(request, status)
        elif request.path.startswith("/api/models/"):
            self._describe(request)
        elif "/resolve/" in request.path and not request.path.startswith("/storage"):
            self._redirect(request)
        else:
            self._send(request)

    def _refuse(self, request: BaseHTTPRequestHandler, status: int) -> None:
        request.send_response(status)
        if self.error_code:
            request.send_header("X-Error-Code", self.error_code)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _describe(self, request: BaseHTTPRequestHandler) -> None:
        repo = request.path.removeprefix("/api/models/").partition("/revision/")[0]
        if repo not in self.repositories:
            self._refuse(request, 404)
            return
        files = self.repositories[repo]
        body = json.dumps(
            {
                "id": repo,
                "sha": COMMIT,
                "gated": False,
                "tags": ["gguf", "license:apache-2.0"],
                "siblings": [{"rfilename": "README.md", "size": 3, "blobId": "0" * 40}]
                + [_sibling(path, content) for path, content in files.items()],
            }
        ).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _redirect(self, request: BaseHTTPRequestHandler) -> None:
        storage = self.location == "/storage"
        request.send_response(302)
        request.send_header("Location", self.location + request.path * storage)
        if self.checksum:
            request.send_header("X-Linked-ETag", f'"{self.checksum}"')
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _send(self, request: BaseHTTPRequestHandler) -> None:
        self.storage_asked.set()
        content = self._content(unquote(request.path))
        start = self._start(request)
        body = content[start:]
        request.send_response(206 if start else 200)
        request.send_header("ETag", self.etag)
        if self.names_length:
            request.send_header("Content-Length", str(self.claims or len(body)))
        if start:
            end, total = len(content) - 1, len(content)
            request.send_header(
                "Content-Range", f"bytes {start + self.shifts_ranges}-{end}/{total}"
            )
        request.end_headers()
        if self.drips is not None:
            self._drip(request, body, self.drips)
            return
        cut = self.cuts.pop(0) if self.cuts else len(body)
        request.wfile.write(body[:cut])
        request.close_connection = True
        if len(self.etags) > 1:
            self.etags.pop(0)

    def _drip(self, request: BaseHTTPRequestHandler, body: bytes, pause: float) -> None:
        for at in range(len(body)):
            request.wfile.write(body[at : at + 1])
            if self.over.wait(pause):
                return

    def _content(self, path: str) -> bytes:
        where = re.fullmatch(r"/storage/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        files = self.repositories.get(where[1], {}) if where else {}
        return files[where[2]] if where and where[2] in files else self.content

    def _start(self, request: BaseHTTPRequestHandler) -> int:
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers["Range"] or "")
        if not wanted or self.ignores_ranges or request.headers["If-Range"] != self.etag:
            return 0
        return int(wanted[1])


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    lfs = {"sha256": digest, "size": len(content), "pointerSize": 134}
    return {"rfilename": path, "size": len(content), "blobId": "1" * 40, "lfs": lfs}


@contextmanager
def serve_hub(content: bytes) -> Iterator[Hub]:
    hub = Hub(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                hub.answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            hub.over.set()
            server.shutdown()
            thread.join()
