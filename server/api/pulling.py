"""A model fetched for the operator, with how far that is as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from server.catalog import ModelSpec, ModelStore, Target, load_catalog, locate
from server.catalog.plan import plan
from server.catalog.pull import pull, pull_plan
from server.catalog.reference import OllamaReference, parse_reference
from server.core.errors import InvalidRequest, StartupError

_FRAME_SECONDS = 0.25
AT_ONCE = 2


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


class Pulls:
    """Into `models_dir`, so many at once; a pull takes minutes, and others wait for their turn."""

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._turns = asyncio.Semaphore(AT_ONCE)

    def frames(self, word: str) -> AsyncGenerator[bytes]:
        """Ends with the pull; closing it ends the pull, which goes on when it is asked for again.

        Raises InvalidRequest at once for what is no reference, and later for what cannot be
        fetched.
        """
        return self._frames(_Pull(_checked(word), self._models_dir))

    async def _frames(self, running: _Pull) -> AsyncGenerator[bytes]:
        last = running.frame()
        yield last
        await self._turns.acquire()
        work = _in_thread(running.run, self._turns.release)
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
            work.cancel()  # nobody asks what became of it


def _in_thread(work: Callable[[], None], then: Callable[[], None]) -> asyncio.Future[None]:
    """In one that holds up neither requests, which need the others, nor the server's end: a pull
    may hang in the network for half a minute. `then` is called in the loop when it has ended,
    whatever became of the future."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        then()
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="pull", daemon=True).start()
    return done


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
