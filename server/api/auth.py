"""API keys: Bearer, x-api-key or api-key; compared in constant time. Never looks at the URL."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request
from starlette.datastructures import Headers

from server.core.errors import Unauthorized

from .keys import ApiKeys
from .state import state_of


async def require_key(request: Request) -> str:
    """The scope of the caller (empty without keys). Raises Unauthorized.

    Clients send several headers, some of them with a dummy: one right key is enough.
    """
    return scope_of(request.headers, state_of(request).keys)


def scope_of(headers: Headers, keys: ApiKeys) -> str:
    """As `require_key`, without a route."""
    if not keys:
        return ""
    given = list(_given(headers))
    if not given:
        raise Unauthorized(
            "You didn't provide an API key. Send it in the header"
            " 'Authorization: Bearer YOUR_KEY'.",
            code="",
        )
    scopes = [scope for key in given if (scope := keys.scope(key)) is not None]
    if not scopes:
        raise Unauthorized("Incorrect API key provided.")
    return scopes[0]


def _given(headers: Headers) -> Iterator[str]:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        yield token.strip()
    for name in ("x-api-key", "api-key"):
        if key := headers.get(name):
            yield key
