"""An unfinished download: hashed as it grows, resumable, renamed when whole."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

from server.core.errors import ModelFileError

_CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class PartFile:
    """`tag` is the source's ETag of the bytes so far; it is kept in a small file beside.

    Nothing is buffered here: what was written is there for the next run, however this one ends.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tag_path = path.with_name(f"{path.name}.etag")
        self._file = path.open("a+b", buffering=0)
        self._digest = hashlib.sha256()
        self._whole = 0
        self.size = 0
        self._count_what_is_there()

    def _count_what_is_there(self) -> None:
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            self._count(chunk)

    def _count(self, chunk: bytes | memoryview) -> None:
        self._digest.update(chunk)
        self.size += len(chunk)

    @property
    def tag(self) -> str | None:
        return self._tag_path.read_text() if self._tag_path.is_file() else None

    def restart(self, tag: str | None = None) -> None:
        """Forget the bytes so far; the next ones belong to `tag`."""
        self._file.truncate(0)
        self._digest = hashlib.sha256()
        self.size = 0
        self._tag_path.unlink(missing_ok=True)
        if tag:
            self._tag_path.write_text(tag)

    def write(self, chunk: bytes) -> None:
        """Raises ModelFileError when the disk is full; what had come is given back then."""
        rest = memoryview(chunk)
        while rest:
            try:
                written = self._file.write(rest)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                need = max(self._whole, self.size + len(rest))
                self.discard()
                raise ModelFileError(_no_room(self.path.parent, need)) from None
            self._count(rest[:written])
            rest = rest[written:]

    def reserve(self, need: int) -> None:
        """Raises ModelFileError when the disk has less than `need` bytes left."""
        self._whole = self.size + need
        try:
            check_room(self.path.parent, need)
        except ModelFileError:
            if not self.size:
                self.discard()
            raise

    def sync(self) -> str:
        """Everything is on the disk afterwards. Returns the SHA-256."""
        os.fsync(self._file.fileno())
        return self._digest.hexdigest()

    def accept(self, final: Path) -> None:
        self.close()
        self.path.replace(final)
        self._tag_path.unlink(missing_ok=True)
        sync_directory(final.parent)

    def discard(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)
        self._tag_path.unlink(missing_ok=True)

    def leave(self) -> None:
        """What came is kept for the next try; where nothing came, nothing stays."""
        self.close()
        if not self.size:
            self.discard()

    def close(self) -> None:
        self._file.close()


def check_room(directory: Path, need: int) -> None:
    """Raises ModelFileError when the disk has less than `need` bytes left."""
    if need > shutil.disk_usage(directory).free:
        raise ModelFileError(_no_room(directory, need))


def sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_room(directory: Path, need: int) -> str:
    free = shutil.disk_usage(directory).free
    return (
        f"{directory} has {free / 1e6:.0f} MB free, {need / 1e6:.0f} MB are needed;"
        " make room, or choose another disk with --models-dir"
    )
