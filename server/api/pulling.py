"""A model fetched for the operator, with how far that is as server-sent events."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from server.catalog import ModelSpec, ModelStore, Target, load_catalog, locate
from server.catalog.plan import plan
from server.catalog.pull import pull, pull_plan
from server.catalog.reference import OllamaReference, parse_reference
from server.core.errors import InvalidRequest, StartupError

_FRAME_SECONDS = 0.25
AT_ONCE = 2
"""More wait: a pull takes minutes, and the threads that requests need are others."""
_threads = ThreadPoolExecutor(AT_ONCE, "pull")


class _Abandoned(Exception):
    pass


class _Pull:
    """One, in a thread of its own: files, sums and sockets block."""

    def __init__(self, word: str, models_dir: Path) -> None:
        self._word = word
        self._models_dir = models_dir
        self._abandoned = threading.Event()
        self.status = "resolving"
        self.name = word
        self.completed = 0
        self.total: int | None = None

    def abandon(self) -> None:
        """It ends soon, and what came is kept."""
        self._abandoned.set()

    def run(self) -> None:
        """Blocks. Raises StartupError."""
        if self._abandoned.is_set():
            return
        catalog, store = load_catalog(), ModelStore(self._models_dir)
        (target,) = locate([self._word], catalog, store)
        missing = target.missing
        self.name = target.name
        if isinstance(missing, ModelSpec):
            self.total = missing.size
            self.status = "downloading"
            pull(missing, store, self._report)
        elif missing is not None:
            wanted = plan(missing, catalog, store)
            self.name, self.total = wanted.name, wanted.size
            self.status = "downloading"
            pull_plan(wanted, store, self._report)
        else:
            self._report_here(target)
        self.status = "done"

    def _report_here(self, target: Target) -> None:
        self.completed = self.total = target.path.stat().st_size

    def _report(self, done: int, total: int | None) -> None:
        if self._abandoned.is_set():
            raise _Abandoned
        self.completed, self.total = done, total
        self.status = "verifying" if total is not None and done >= total else "downloading"

    def frame(self) -> bytes:
        body: dict[str, Any] = {
            "status": self.status,
            "model": self.name,
            "completed": self.completed,
            "total": self.total,
        }
        return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


async def pull_frames(word: str, models_dir: Path) -> AsyncGenerator[bytes]:
    """Ends with the pull; closing it ends the pull, which goes on the next time it is asked for.

    Raises InvalidRequest for what is no reference, and for what cannot be fetched.
    """
    reference = _checked(word)
    running = _Pull(reference, models_dir)
    work = asyncio.get_running_loop().run_in_executor(_threads, running.run)
    last = b""
    try:
        while not work.done():
            if (frame := running.frame()) != last:
                last = frame
                yield frame
            await asyncio.wait((work,), timeout=_FRAME_SECONDS)
        try:
            work.result()
        except StartupError as error:
            raise InvalidRequest(error.message, param="model", code="pull_failed") from None
        yield running.frame()
    finally:
        running.abandon()


def _checked(word: str) -> str:
    """A path would be of the server's own files."""
    try:
        reference = parse_reference(word)
    except StartupError as error:
        raise InvalidRequest(error.message, param="model") from None
    if isinstance(reference, OllamaReference) or (
        reference is None and load_catalog().find(word) is None
    ):
        raise InvalidRequest(
            f"Unknown model '{word[:100]}': send a name of the catalogue, hf:ORG/REPO[:QUANT] or"
            " https://HOST/FILE.gguf.",
            param="model",
        )
    return word
