"""Under which names the server is asked: what stops DNS rebinding.

A page of any site can let its own name point to this machine; then the browser takes the page and
a server on localhost for one site, and no rule about origins applies. The Host header still says
the site's name.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from server.core.errors import HostRefused, InvalidRequest
from server.settings import Settings

from .errors import code_of, response_of
from .summary import summary_of

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{0,5})?")
_SHOWN = 100


class Hosts:
    """Answers 400 where there is not one well-formed Host, 403 where it is none of `allowed`.

    `allowed` is as in the settings, empty for all names. `open_paths` answer under every name:
    probes ask a container by its address.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str], open_paths: Collection[str]) -> None:
        self._app = app
        self._allowed = frozenset(map(_bare, allowed))
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._error(scope)) is not None:
            summary_of(scope).error = code_of(error)
            await response_of(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _error(self, scope: Scope) -> InvalidRequest | HostRefused | None:
        given = [value for name, value in scope["headers"] if name == b"host"]
        if not given and scope["http_version"] == "1.0":
            return None  # no browser speaks it, and load balancers ask so whether a server is well
        found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if found is None:
            return InvalidRequest(
                "A request needs one Host header, a name or an address with an optional port.",
                code="invalid_host",
            )
        host = _bare(found[1].decode())
        if scope["path"] in self._open_paths or self._allows(host):
            return None
        return HostRefused(
            f"This server is not asked under the name '{host[:_SHOWN]}', so that no web page can"
            " pass itself off as local. If the name is yours, add it to the setting allowed_hosts"
            f" (--allowed-hosts {host[:_SHOWN]})."
        )

    def _allows(self, host: str) -> bool:
        if not self._allowed or "*" in self._allowed or host in self._allowed or _is_local(host):
            return True
        parents = (host[at:] for at, letter in enumerate(host) if letter == ".")
        return any(f"*{parent}" in self._allowed for parent in parents)


def allowed_hosts(settings: Settings) -> tuple[str, ...]:
    """The names to answer under besides this machine's own, empty for all of them.

    Who listens on the network has a key to protect him, and may be called by any name.
    """
    if settings.allowed_hosts or not is_loopback(settings.host):
        return settings.allowed_hosts
    return (settings.host,)


def is_loopback(host: str) -> bool:
    """Whether who listens there is reached from this machine only. False for what is no address."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        return False
    return all(_loops_back(str(address[0]).split("%")[0]) for *_, address in found)


def _loops_back(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return _loops_back(host)
    except ValueError:
        return False


def _bare(host: str) -> str:
    """Without the brackets of an address, the dot of a full name and capitals."""
    return host.strip("[]").removesuffix(".").lower()
