"""Who may look after the server: whoever has its key, or this machine where there is none."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from fastapi import Request

from server.core.errors import AdminRefused, Unauthorized
from server.services.place import Place

from .auth import scope_of
from .in_flight import PLACE
from .state import state_of

_PROXIED = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "cf-connecting-ip",
)
"""Behind a proxy on this machine everybody's requests come from this machine."""


async def require_admin(request: Request) -> None:
    """Raises Unauthorized, AdminRefused."""
    request.scope[PLACE] = Place()  # it needs no room: a server that is full is looked after too
    state = state_of(request)
    if state.admin.keys:
        _check_key(request)
    elif _is_local(request):
        scope_of(request.headers, state.keys)
    else:
        raise AdminRefused(
            "Only this machine may look after the server. For others set 'admin_key' and send it"
            " in the header 'Authorization: Bearer YOUR_ADMIN_KEY'."
        )
    _check_origin(request)


def _check_key(request: Request) -> None:
    state = state_of(request)
    try:
        scope_of(request.headers, state.admin.keys)
    except Unauthorized:
        if state.keys and _has_key(request):
            raise AdminRefused("An API key is not enough here: send the admin key.") from None
        raise


def _has_key(request: Request) -> bool:
    try:
        return bool(scope_of(request.headers, state_of(request).keys))
    except Unauthorized:
        return False


def _check_origin(request: Request) -> None:
    """A page of another site may make a browser on this machine ask; only our own is let in."""
    origin = request.headers.get("origin")
    if origin is not None and _host_of(origin) != request.headers.get("host"):
        raise AdminRefused("Web pages of other origins may not look after the server.")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _is_local(request: Request) -> bool:
    if any(name in request.headers for name in _PROXIED):
        return False
    if request.client is None:  # a socket of this machine
        return True
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
