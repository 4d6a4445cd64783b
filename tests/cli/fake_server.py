"""A small server that answers as Ingle does, for commands that are its clients."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOADED: dict[str, Any] = {
    "id": "tiny",
    "aliases": ["small"],
    "kind": "generate",
    "status": "loaded",
    "error": None,
    "bytes": 1_500_000_000,
    "measured": True,
    "pinned": False,
    "replicas": [{"status": "ready", "pid": 1, "running": 1, "waiting": 0, "restarts": 0}],
    "requests": 2,
    "waiting": 1,
    "keep_alive_seconds": 600,
    "unloads_in_seconds": 300.0,
    "idle_seconds": None,
    "context": 4096,
    "slots": 8,
    "quantization": "Q4_1",
    "load_seconds": 1.1,
}
UNLOADED: dict[str, Any] = LOADED | {
    "id": "large",
    "aliases": [],
    "status": "unloaded",
    "bytes": 5_000_000_000,
    "measured": False,
    "replicas": [],
    "requests": 0,
    "waiting": 0,
    "keep_alive_seconds": None,
    "unloads_in_seconds": None,
}
REQUEST: dict[str, Any] = {
    "id": "req_1",
    "model": "tiny",
    "path": "/v1/chat/completions",
    "status": "decode",
    "seconds": 3.2,
    "prompt_tokens": 24,
    "completion_tokens": 7,
    "stream": True,
    "client": "127.0.0.1",
}


class FakeServer:
    """It says what it is told, word by word. What begins with `think` is thought about first,
    `for ever` goes on until nobody listens, `break` ends with an error, `red` comes in colour."""

    def __init__(self) -> None:
        self.models: list[dict[str, Any]] = [dict(LOADED), dict(UNLOADED)]
        self.capabilities = {"tiny": ["completion", "chat"], "large": ["completion"]}
        self.admin_key: str | None = None
        self.api_key: str | None = None
        self.reloaded: dict[str, list[str]] = {
            "changed": ["model.tiny.pin"],
            "added": [],
            "removed": [],
            "needs_restart": ["port"],
        }
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.keys: list[str | None] = []
        self.left = threading.Event()
        """Somebody went before the end."""
        self.url = ""

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for _, asked, body in self.asked if asked == path]


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    fake = FakeServer()
    handler = type("Handler", (_Handler,), {"fake": fake})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        fake.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield fake
        http.shutdown()


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({})

    def do_DELETE(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        self._answer(json.loads(self.rfile.read(size) or b"{}"))

    def _answer(self, body: dict[str, Any]) -> None:
        self.fake.asked.append((self.command, self.path, body))
        key = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        self.fake.keys.append(key)
        try:
            self._check(key)
            if body.get("stream"):
                self._stream(body)
            else:
                self._send(200, self._body(body))
        except _Refused as no:
            error = {"message": no.message, "type": "x", "param": None, "code": no.code}
            self._send(no.status, {"error": error})

    def _check(self, key: str | None) -> None:
        wanted = self.fake.admin_key if self.path.startswith("/admin") else self.fake.api_key
        if wanted is not None and key != wanted:
            raise _Refused(401, "invalid_api_key", "Incorrect key.")

    def _body(self, body: dict[str, Any]) -> Any:
        fake, path = self.fake, self.path
        if path == "/v1/models":
            entries = [
                {"id": name, "owned_by": "ingle", "capabilities": fake.capabilities[model["id"]]}
                for model in fake.models
                for name in (model["id"], *model["aliases"])
            ]
            return {"object": "list", "data": entries}
        if path == "/admin/models":
            memory = {"budget_bytes": 8_000_000_000, "used_bytes": 1_500_000_000}
            return {"object": "list", "data": fake.models, "memory": memory}
        if path == "/admin/requests":
            return {"object": "list", "data": [REQUEST]}
        if path == f"/admin/requests/{REQUEST['id']}":
            return {"id": REQUEST["id"], "cancelled": True}
        if path.startswith("/admin/requests/"):
            raise _Refused(404, "request_not_found", "There is no such request inside.")
        if path == "/admin/reload":
            return fake.reloaded
        if path in ("/admin/models/load", "/admin/models/unload"):
            return self._moved(body["model"], path.rsplit("/", 1)[1])
        raise _Refused(404, "not_found", f"There is no {path}.")

    def _moved(self, name: str, how: str) -> dict[str, Any]:
        model = next((one for one in self.fake.models if one["id"] == name), None)
        if model is None:
            raise _Refused(404, "model_not_found", f"The model `{name}` does not exist.")
        if how == "unload" and model["pinned"]:
            raise _Refused(409, "model_pinned", f"{name} is pinned.")
        model["status"] = "loaded" if how == "load" else "unloaded"
        return model

    def _send(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, body: dict[str, Any]) -> None:
        chat = "messages" in body
        asked = body["messages"][-1]["content"] if chat else body["prompt"]
        if asked.startswith("refuse"):
            raise _Refused(400, "invalid_value", "Invalid 'temperature'.")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        try:
            for piece in _pieces(asked, chat):
                self._event(piece)
                if asked.startswith("for ever"):
                    time.sleep(0.02)
        except OSError:
            self.fake.left.set()

    def _event(self, event: Any) -> None:
        data = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()


def _pieces(asked: str, chat: bool) -> Iterator[Any]:
    def said(text: str, key: str = "content") -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {key: text}} if chat else {"text": text}]}

    if asked.startswith("think"):
        yield from (said(f"{word} ", "reasoning_content") for word in ("let", "me", "see"))
    if asked.startswith("break"):
        yield said("half ")
        yield {"error": {"message": "The engine ended.", "code": "engine_error"}}
    yield said(asked.replace("red", "\x1b[31mred"))
    number = 0
    while asked.startswith("for ever"):
        number += 1
        yield said(f" {number}")
    end = {"delta": {}, "finish_reason": "stop"} if chat else {"text": "", "finish_reason": "stop"}
    yield {"choices": [{"index": 0, **end}]}
    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    yield {"choices": [], "usage": usage | {"prompt_tokens_details": {"cached_tokens": 2}}}
    yield "[DONE]"
