"""What can be known to fail before any model is loaded."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress

import psutil

from server.api.hosts import is_loopback
from server.api.keys import load_keys
from server.catalog import ResolvedModel
from server.core.errors import ConfigError, OutOfMemory
from server.settings import Settings

from .units import in_bytes

log = logging.getLogger("ingle.cli")

_PORTS_TO_TRY = 100

_Address = tuple[socket.AddressFamily, tuple[str | int | bytes, ...]]


def check_exposure(settings: Settings) -> None:
    """Others on the network may not use the machine without a key."""
    _addresses(settings.host, settings.port)
    if settings.has_keys or is_loopback(settings.host):
        return
    if not settings.insecure:
        raise ConfigError(
            f"--host {settings.host} opens the server to the network: protect it with --api-key "
            "or --api-key-file, listen on 127.0.0.1, or pass --insecure to let everybody in"
        )
    names = (
        ""
        if settings.allowed_hosts
        else (", and any web page that one of them visits; --allowed-hosts keeps web pages out")
    )
    log.warning(
        "INSECURE: %s is open to everybody who reaches this machine, without a key%s",
        settings.host,
        names,
    )


def check_keys(settings: Settings) -> None:
    """Raises ConfigError for a key file that cannot be used."""
    load_keys(settings)
    path = settings.api_key_file
    if path is not None and path.stat().st_mode & stat.S_IROTH:
        log.warning(
            "everybody on this machine can read the key file: chmod o-r it",
            extra={"path": str(path)},
        )


def check_port(host: str, port: int) -> None:
    """Raises ConfigError, naming the cause and what to pass instead."""
    failures = [_try_to_bind(address) for address in _addresses(host, port)]
    missing = errno.EADDRNOTAVAIL
    failure = next((code for code in failures if code not in (0, missing)), 0)
    if failure:
        raise ConfigError(_why_not(host, port, failure))
    if all(code == missing for code in failures):
        raise ConfigError(f"{host} is not an address of this machine; pass another --host")


def check_memory(models: Sequence[ResolvedModel], budget: int) -> None:
    """The weights of each must fit. A GPU may hold them instead, then the engine decides.

    `budget` in bytes, of all models together.
    """
    from server.llama.machine import has_gpu_backend

    largest = max(models, key=lambda model: model.header.size)
    need = largest.header.size
    if need > budget and not has_gpu_backend():
        raise OutOfMemory(
            f"too little memory: {largest.name} takes {in_bytes(need)} and {in_bytes(budget)} may"
            " be taken; close other programs, or choose a smaller model or quantisation"
        )


def _addresses(host: str, port: int) -> list[_Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        raise ConfigError(f"--host {host} is not an address of this machine") from None
    return [(family, address) for family, _, _, _, address in found]


def _try_to_bind(where: _Address) -> int:
    """0 or the error number."""
    family, address = where
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            if os.name == "posix":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(1)
    except OSError as error:
        return errno.EADDRNOTAVAIL if error.errno == errno.EAFNOSUPPORT else error.errno or -1
    return 0


def _why_not(host: str, port: int, code: int) -> str:
    other = _free_port(host, port)
    if code == errno.EADDRINUSE:
        return f"port {port} is in use{_user_of(port)}; stop the other program or pass {other}"
    if code == errno.EACCES:
        return f"port {port} needs more rights than this user has; pass {other}"
    return f"cannot listen on {host}:{port}: {os.strerror(code)}; pass {other}"


def _free_port(host: str, port: int) -> str:
    first = max(port + 1, 1024 if port > 1023 else 8000)
    for candidate in range(first, min(first + _PORTS_TO_TRY, 65536)):
        if not any(_try_to_bind(address) for address in _addresses(host, candidate)):
            return f"--port {candidate}"
    return "another --port"


def _user_of(port: int) -> str:
    """Who listens there, as far as this user may know."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            listening = connection.status == psutil.CONN_LISTEN
            if listening and connection.pid and connection.laddr[1:] == (port,):
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
