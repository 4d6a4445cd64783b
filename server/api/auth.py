"""API keys: Bearer, x-api-key or api-key; compared in constant time. Never looks at the URL."""

from __future__ import annotations

import hashlib
import hmac

from fastapi import Request

from server.core.errors import Unauthorized

from .state import state_of


async def require_key(request: Request) -> str:
    """The scope of the caller (a hash of its key, empty without keys). Raises Unauthorized."""
    keys = state_of(request).api_keys
    if not keys:
        return ""
    given = _given(request)
    if given is None:
        raise _missing()
    digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
    known = [hmac.compare_digest(digest, hashlib.sha256(key.encode()).digest()) for key in keys]
    if not any(known):
        raise Unauthorized("Incorrect API key provided.")
    return digest.hex()[:16]


def _given(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get("x-api-key") or request.headers.get("api-key")


def _missing() -> Unauthorized:
    error = Unauthorized(
        "You didn't provide an API key. Send it in the header 'Authorization: Bearer YOUR_KEY'."
    )
    error.error_code = None
    return error
