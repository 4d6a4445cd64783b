"""A place in memory where engines leave their prefixes while a server lasts.

Files of a file system in memory: engines come and go, and find them as they find those on disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from server.core.config import StoreConfig

SHARED_MEMORY = Path("/dev/shm")
_NAME = re.compile(r"ingle-(\d+)")
_SHARE = 0.5
"""Of what is free there: containers have little of it, and other programs use it too."""


def volatile_store(most: int, where: Path = SHARED_MEMORY) -> StoreConfig | None:
    """Of this process, with at most so many bytes; None where there is no such file system.

    What servers left that were killed is removed.
    """
    if most <= 0 or not os.access(where, os.W_OK):
        return None
    _sweep(where)
    room = int(shutil.disk_usage(where).free * _SHARE)
    return StoreConfig(str(where / f"ingle-{os.getpid()}"), min(most, room), lasting=False)


def remove(store: StoreConfig | None) -> None:
    if store is not None and not store.lasting:
        shutil.rmtree(store.directory, ignore_errors=True)


def _sweep(where: Path) -> None:
    with contextlib.suppress(OSError):
        for entry in os.scandir(where):
            named = _NAME.fullmatch(entry.name)
            if named is None or not entry.is_dir(follow_symlinks=False):
                continue
            if entry.stat(follow_symlinks=False).st_uid == os.geteuid() and not _lives(named[1]):
                shutil.rmtree(entry.path, ignore_errors=True)


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
