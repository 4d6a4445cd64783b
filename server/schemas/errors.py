"""The OpenAI error envelope. Nothing else formats one."""

from __future__ import annotations

import json
from typing import Any


def error_body(
    message: str, kind: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string", "enum": ["invalid_request_error", "server_error"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
"""The envelope as a JSON schema, for the OpenAPI document."""


def error_frame(body: dict[str, Any]) -> bytes:
    """An error inside a stream. SDKs take a stream that merely ends for a complete answer."""
    return f"data: {json.dumps(body)}\n\n".encode()
