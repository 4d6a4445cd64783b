"""Files, ports and limits: what must be there, be writable, be private or be free."""

from __future__ import annotations

import os
import re
import resource
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from server.api.hosts import is_loopback
from server.api.http_server import FILES_BESIDE, MAX_CONNECTIONS
from server.api.keys import load_keys
from server.cli import checks
from server.cli.remote import Refused, Unreachable, remote_of
from server.cli.units import in_bytes
from server.core.errors import ConfigError
from server.settings import Loaded, state_dir

from .finding import Finding, fail, ok, refused, warn

_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "afs", "davfs"}
    | {"fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.glusterfs", "virtiofs"}
)
_MOUNTS = Path("/proc/self/mountinfo")
_DEVICES = Path("/sys/dev/block")
_VIRTUAL = re.compile(r"/virtio\d|/virtual/|/xen|/vbd-|/block/xvd")
_LITTLE_ROOM = 2 << 30


def place_findings(loaded: Loaded) -> Iterator[Finding]:
    settings = loaded.settings
    yield from _ways_in(loaded)
    yield from key_findings(loaded)
    yield models_dir(settings.models_dir)
    yield disk(settings.models_dir)
    if settings.disk_cache_mb:
        yield prefixes(settings.cache_dir, settings.disk_cache_mb << 20)
    yield history(state_dir())
    yield open_files(*resource.getrlimit(resource.RLIMIT_NOFILE))


def _ways_in(loaded: Loaded) -> Iterator[Finding]:
    settings = loaded.settings
    try:
        checks.check_exposure(settings)
    except ConfigError as error:
        yield refused("address", error)
        return
    everybody = not settings.has_keys and not is_loopback(settings.host)
    if everybody:
        yield warn(
            "address",
            f"everybody who reaches {settings.host} may use the server, without a key",
            "set api_key or api_key_file",
        )
    else:
        yield ok("address", settings.host)
    yield port(loaded)


def port(loaded: Loaded) -> Finding:
    settings = loaded.settings
    try:
        checks.check_port(settings.host, settings.port)
    except ConfigError as error:
        if _is_ingle(loaded):
            return ok("port", f"{settings.port}: an Ingle server runs there")
        return refused("port", error)
    return ok("port", f"{settings.port} is free")


def _is_ingle(loaded: Loaded) -> bool:
    """By its models; by what it has for probes where they are not told without its key."""
    try:
        with remote_of(loaded, None, ("api_key", "api_key_file")) as remote:
            try:
                owners = {model["owned_by"] for model in remote.get("/v1/models", 2)["data"]}
            except Refused as error:
                return error.status == 401 and remote.get("/livez", 2) == {"status": "ok"}
    except (Refused, Unreachable, KeyError, TypeError):
        return False
    return owners == {"ingle"}


def key_findings(loaded: Loaded) -> Iterator[Finding]:
    """Keys that are wrong, and files with keys that others may read."""
    settings = loaded.settings
    try:
        load_keys(settings)
    except ConfigError as error:
        yield refused("keys", error)
    if settings.api_key_file is not None and settings.api_key_file.is_file():
        yield _private("key file", settings.api_key_file)
    if loaded.file is not None:
        secret = any(loaded.origins[key].kind == "file" for key in ("api_key", "admin_key"))
        if secret:
            yield _private("settings file", loaded.file)
        else:
            yield ok("settings file", str(loaded.file.absolute()))


def _private(check: str, path: Path) -> Finding:
    if path.stat().st_mode & stat.S_IROTH:
        return warn(
            check,
            f"everybody on this machine can read the keys in {path}",
            f"chmod o-r {path}",
        )
    return ok(check, str(path))


def models_dir(path: Path) -> Finding:
    """It is made when it is first needed."""
    there = _existing(path)
    if not there.is_dir():
        return fail("models", f"{there} is no directory", "choose another with models_dir")
    if not os.access(there, os.W_OK | os.X_OK):
        return warn(
            "models",
            f"{there} cannot be written to: models cannot be fetched or tuned",
            "change its permissions, or choose another directory with models_dir",
        )
    free = shutil.disk_usage(there).free
    if free < _LITTLE_ROOM:
        return warn(
            "models",
            f"{in_bytes(free)} are free in {path}",
            "make room, or choose another directory with models_dir",
        )
    return ok("models", f"{path}, {in_bytes(free)} free")


def disk(
    path: Path, mounts: Path = _MOUNTS, devices: Path = _DEVICES, *, check: str = "disk"
) -> Finding:
    """What models lie on: weights are mapped, so pages that memory lost are read there again."""
    kind, device = _mounted(path, mounts)
    remedy = "keep models on a local SSD (models_dir)"
    if kind in _NETWORK:
        return warn(check, f"models come over the network ({kind}): loading is slow", remedy)
    if _spins(device, devices):
        return warn(check, "models lie on a spinning disk: loading is slow", remedy)
    return ok(check, f"local ({kind})" if kind else "unknown")


def _mounted(path: Path, mounts: Path) -> tuple[str, str]:
    """File system and device number of the deepest mount that holds the path."""
    where = path.resolve()
    best: tuple[int, str, str] = (-1, "", "")
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        device, point = before.split()[2], Path(before.split()[4].replace("\\040", " "))
        if (where == point or point in where.parents) and len(point.parts) >= best[0]:
            best = (len(point.parts), after.split()[0], device)
    return best[1], best[2]


def _spins(device: str, devices: Path) -> bool:
    """Of a partition the disk it is on tells. Virtual disks all say that they spin."""
    folder = (devices / device).resolve()
    if _VIRTUAL.search(str(folder)):
        return False
    for place in (folder, folder.parent):
        try:
            return (place / "queue" / "rotational").read_text().strip() == "1"
        except OSError:
            continue
    return False


def prefixes(folder: Path, most: int) -> Finding:
    """On disk; `most` bytes of them. Engines make the directory, and want it for themselves."""
    check, there = "prefix cache", _existing(folder)
    if there == folder and there.is_dir() and there.stat().st_mode & 0o077:
        return warn(check, f"{folder} is open to others and so not used", f"chmod 700 {folder}")
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return warn(
            check,
            f"{there} cannot be written to: prefixes end with the engine that has them",
            "choose another directory with cache_dir",
        )
    taken = sum(file.stat().st_size for file in folder.rglob("*.state"))
    free = shutil.disk_usage(there).free
    if taken + free < most:
        return warn(
            check,
            f"{in_bytes(most)} may be taken, and {in_bytes(free)} are free in {folder}",
            "make room, or lower disk_cache_mb",
        )
    return ok(check, f"{folder}, {in_bytes(taken)} of {in_bytes(most)} taken")


def history(folder: Path) -> Finding:
    file = folder / "history"
    if file.exists() and file.stat().st_mode & (stat.S_IROTH | stat.S_IRGRP):
        return warn(
            "history", f"others can read what was typed in `ingle run`: {file}", f"chmod 600 {file}"
        )
    there = _existing(folder)
    if not os.access(there, os.W_OK):
        return warn(
            "history", f"what is typed in `ingle run` is not kept: {there}", "make it writable"
        )
    return ok("history", f"{file}" if file.exists() else "nothing is kept yet")


def _existing(path: Path) -> Path:
    """It, or the nearest folder above that there is."""
    absolute = path.absolute()
    return next(place for place in (absolute, *absolute.parents) if place.exists())


def open_files(soft: int, hard: int) -> Finding:
    """The server raises its own limit as far as it may."""
    wanted = MAX_CONNECTIONS + FILES_BESIDE
    limit = wanted if hard == resource.RLIM_INFINITY else hard
    if limit < wanted:
        return warn(
            "open files",
            f"at most {hard}: {max(0, hard - FILES_BESIDE)} connections at once",
            f"raise the limit to {wanted} (ulimit -Hn, LimitNOFILE=)",
        )
    return ok("open files", f"at most {'any number' if soft == resource.RLIM_INFINITY else limit}")
