"""Judges every answer of a server, whatever it was asked."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import jsonschema
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

from server.schemas.errors import ERROR_SCHEMA
from tests.api.streams import chunks_of, completions_of

from .conftest import Server

PAGE = "http://localhost:3000"
"""Every request comes from a web page: CORS headers belong on every answer."""
PATIENCE = 20.0
_REFUSALS = {400, 404, 405, 413, 415}
_ANSWERS = {
    "/v1/chat/completions": ChatCompletion,
    "/v1/completions": Completion,
    "/v1/embeddings": CreateEmbeddingResponse,
}
_HI = {"messages": [{"role": "user", "content": "Still here?"}], "temperature": 0}


class Referee:
    """Sends one request after the other, and counts what came back since it was told to forget."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client = httpx2.Client(
            base_url=server.base, timeout=PATIENCE, headers={"origin": PAGE}
        )
        self._processes = [process.pid for process in server.engines()]
        self.forget()

    def close(self) -> None:
        self._client.close()

    def forget(self) -> None:
        self.answered = self.refused = self.streams = 0

    @property
    def sent(self) -> int:
        return self.answered + self.refused

    def post(self, path: str, body: Any) -> dict[str, Any] | None:
        """The error, if it is one. `body` is JSON, or the bytes of what may be none."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            return self._post(path, content, body)
        except (AssertionError, ValueError) as error:
            error.add_note(f"sent: {content[:4000]!r}")
            raise

    def _post(self, path: str, content: bytes, body: Any) -> dict[str, Any] | None:
        headers = {"content-type": "application/json"}
        response = self._client.post(path, content=content, headers=headers)
        assert response.headers["x-request-id"]
        assert response.headers["access-control-allow-origin"] == PAGE
        assert "x-request-id" in response.headers["access-control-expose-headers"]
        if response.status_code == 200:
            self.answered += 1
            self._check_answer(path, response, body)
            return None
        self.refused += 1
        return check_refusal(response)

    def check_unbroken(self) -> None:
        """The engines are those of the start, idle, and the server still answers."""
        health = self._client.get("/health")
        answer = self._client.post("/v1/chat/completions", json=_HI)
        assert (health.status_code, answer.status_code) == (200, 200), answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "Still here?"
        for model in ("echo", "embed", "rank"):
            assert self._server.metric("ingle_engine_restarts_total", model) == 0
            assert self._server.metric("ingle_requests_running", model) == 0
            assert self._server.metric("ingle_requests_waiting", model) == 0
        running = {process.pid for process in self._server.engines()}
        assert running.issuperset(self._processes)

    def _check_answer(self, path: str, response: httpx2.Response, body: Any) -> None:
        if isinstance(body, bytes):  # damaged, and still JSON
            body = json.loads(body)
        if response.headers["content-type"] == "text/event-stream; charset=utf-8":
            self.streams += 1
            _check_stream(path, response.text, body)
            return
        assert response.headers["content-type"] == "application/json"
        json.loads(response.text, parse_constant=_no_number)
        # The SDK decodes vectors before it checks, and knows no token without a score.
        lax = body.get("encoding_format") == "base64" or body.get("echo")
        if (answer := _ANSWERS.get(path)) and not lax:
            answer.model_validate_json(response.text, strict=True)


def _check_stream(path: str, stream: str, body: dict[str, Any]) -> None:
    assert body["stream"] is True
    include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    choices = body.get("n") or 1
    if path == "/v1/chat/completions":
        chunks_of(stream, choices=choices, include_usage=include_usage)
    else:
        assert len(completions_of(stream, include_usage=include_usage)) % choices == 0


def check_refusal(response: httpx2.Response) -> dict[str, Any]:
    """A clear error that the client can mend, in OpenAI's envelope and nothing beside it."""
    assert response.status_code in _REFUSALS, (response.status_code, response.text[:500])
    assert response.headers["content-type"] == "application/json"
    error = response.json()
    assert set(error) == {"error"} and set(error["error"]) == {"message", "type", "param", "code"}
    jsonschema.validate(error, ERROR_SCHEMA)
    assert error["error"]["message"] and error["error"]["type"] == "invalid_request_error"
    assert error["error"]["code"] != "" and error["error"]["param"] != ""
    return dict(error["error"])


def _no_number(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")
