"""Sequence states as files, so that they outlive the engine that computed them.

One state a file, of one directory a key: what a model, a build of the engine and the form of its KV
memory have in common. A file is written under another name and renamed when it is whole; it is not
synced, for one that a power failure cuts is refused by its sum like any other damaged one.

    b"INGLEKV1" | length of the header, 4 bytes | header | state | keyed BLAKE2b, 32 bytes

The key of the sum lies beside the files, readable by their owner alone. So does all else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import stat
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

log = logging.getLogger("ingle.engine")

_MAGIC = b"INGLEKV1"
_SUM_BYTES = 32
_MOST_HEADER = 64 << 20
_NAME = re.compile(r"[0-9a-f]{64}\.state")
_SECRET = "secret"
_OLD_PART_SECONDS = 3600.0


class _Header(Struct, frozen=True):
    key: str
    scope: str
    tokens: bytes


class FileState(Struct, frozen=True):
    """`age` in seconds since it was last of use."""

    tokens: list[int]
    scope: str
    state: memoryview
    age: float


class Unusable(Exception):
    """The directory cannot be used; the message says why."""


class StateFiles:
    """The states of one key below `root`, which holds at most `capacity` bytes of all keys.

    `refused` counts files that were not what they should be, by why; they are removed.
    """

    def __init__(self, root: Path, key: str, capacity: int) -> None:
        """Raises Unusable."""
        self._root = root
        self._key = key
        self._capacity = capacity
        self.refused: Counter[str] = Counter()
        self._directory = root / hashlib.sha256(key.encode()).hexdigest()[:32]
        try:
            for directory in (root, self._directory):
                _own(directory)
            self._secret = _secret_of(root / _SECRET)
        except OSError as error:
            raise Unusable(f"{error.filename or root}: {error.strerror}") from None

    def load(self) -> Iterator[FileState]:
        """Those that are whole, the latest used first."""
        for path, _, used in sorted(self._files(self._directory), key=lambda file: -file[2]):
            with contextlib.suppress(OSError):
                found = self._read(path, max(0.0, time.time() - used))
                if isinstance(found, FileState):
                    yield found
                else:
                    self.refused[found] += 1
                    path.unlink(missing_ok=True)

    def keep(self, tokens: list[int], scope: str, state: bytes | memoryview) -> bool:
        """Whether it is there now. What was used longest ago goes for it, of any key."""
        path = self._path(tokens, scope)
        try:
            if path.exists():
                os.utime(path)
                return True
            header = msgspec.msgpack.encode(_Header(self._key, scope, array("I", tokens).tobytes()))
            size = len(_MAGIC) + 4 + len(header) + len(state) + _SUM_BYTES
            if size > self._capacity:
                return False
            self._make_room(size)
            self._write(path, header, state)
        except OSError as error:
            log.warning("a state cannot be kept", extra={"reason": error.strerror})
            return False
        return True

    @property
    def size(self) -> int:
        """Bytes of all keys."""
        return sum(size for _, size, _ in self._all())

    def _path(self, tokens: list[int], scope: str) -> Path:
        digest = hashlib.sha256(scope.encode() + b"\0" + array("I", tokens).tobytes())
        return self._directory / f"{digest.hexdigest()}.state"

    def _write(self, path: Path, header: bytes, state: bytes | memoryview) -> None:
        draft = path.with_name(f"{path.name}.{os.getpid()}.part")
        start = _MAGIC + len(header).to_bytes(4, "big") + header
        total = hashlib.blake2b(start, key=self._secret, digest_size=_SUM_BYTES)
        total.update(state)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with open(os.open(draft, flags, 0o600), "wb") as file:
                file.write(start)
                file.write(state)
                file.write(total.digest())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def _read(self, path: Path, age: float) -> FileState | str:
        """The state, or why it is refused."""
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or not _is_private(status):
                return "owner"
            if status.st_size > self._capacity:
                return "format"
            content = memoryview(file.read(status.st_size))
        end = len(content) - _SUM_BYTES
        if end < len(_MAGIC) + 4 or content[: len(_MAGIC)] != _MAGIC:
            return "format"
        total = hashlib.blake2b(content[:end], key=self._secret, digest_size=_SUM_BYTES)
        if not secrets.compare_digest(total.digest(), bytes(content[end:])):
            return "damaged"
        length = int.from_bytes(content[len(_MAGIC) : len(_MAGIC) + 4], "big")
        start = len(_MAGIC) + 4
        if length > min(_MOST_HEADER, end - start):
            return "format"
        try:
            header = msgspec.msgpack.decode(content[start : start + length], type=_Header)
            tokens = array("I", header.tokens).tolist()
        except (msgspec.MsgspecError, ValueError):
            return "format"
        if header.key != self._key:
            return "foreign"
        if path != self._path(tokens, header.scope):
            return "foreign"
        return FileState(tokens, header.scope, content[start + length : end], age)

    def _make_room(self, size: int) -> None:
        files = sorted(self._all(), key=lambda file: file[2])
        taken = sum(size for _, size, _ in files)
        for path, old, _ in files:
            if taken + size <= self._capacity:
                return
            path.unlink(missing_ok=True)
            taken -= old

    def _all(self) -> Iterator[tuple[Path, int, float]]:
        for directory in self._root.iterdir():
            if directory.is_dir() and not directory.is_symlink():
                yield from self._files(directory)

    def _files(self, directory: Path) -> Iterator[tuple[Path, int, float]]:
        """Path, bytes and time of last use; drafts that nobody will finish are removed."""
        for entry in os.scandir(directory):
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if _NAME.fullmatch(entry.name):
                    yield Path(entry.path), status.st_size, status.st_mtime
                elif entry.name.endswith(".part") and _is_old(status):
                    os.unlink(entry.path)


def _is_old(status: os.stat_result) -> bool:
    return time.time() - status.st_mtime > _OLD_PART_SECONDS


def _own(directory: Path) -> None:
    """There, ours, and closed to others. Raises Unusable, OSError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or not _is_private(status):
        raise Unusable(f"{directory} must be a directory of this user alone: chmod 700")


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _secret_of(path: Path) -> bytes:
    """Made by the first that comes; several may at once."""
    with contextlib.suppress(FileExistsError):
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        draft.touch(mode=0o600)
        draft.write_bytes(secrets.token_bytes(32))
        try:
            os.link(draft, path)
        finally:
            draft.unlink()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        if not _is_private(os.fstat(file.fileno())):
            raise Unusable(f"{path} must be readable by this user alone: chmod 600")
        return file.read(64)
