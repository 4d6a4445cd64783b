"""Files over HTTPS, Hugging Face above all: streamed, resumed with Range, retried."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx2

from server.core.errors import ModelFileError

from .part import PartFile
from .web import Web, is_hub

Report = Callable[[int, int | None], None]
"""Called with the bytes done and, when known, the bytes in all."""

log = logging.getLogger("ingle.catalog")

_T = TypeVar("_T")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RETRIED = {408, 416, 425, 429, 500, 502, 503, 504}
_LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How much trouble is borne. A transfer may take any time as long as it moves.

    `pauses` are the seconds before each retry that follows a try without `progress` bytes; one
    that brought those waits the first of them. Fewer than `least` bytes in `stall` seconds end a
    try.
    """

    pauses: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    stall: float = 30.0
    least: int = 32 << 10
    progress: int = 64 << 10


PATIENCE = Patience()


class Interrupted(Exception):
    """The transfer ended early; what came is kept. `after`: seconds the server asks to wait."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


def fetch_https(
    url: str,
    part: PartFile,
    report: Report,
    web: Web,
    *,
    size: int | None = None,
    patience: Patience = PATIENCE,
) -> str | None:
    """Bring `part` to the whole file. Returns the SHA-256 the server names, if it names one.

    `size` in bytes, where it is known for sure. Raises ModelFileError.
    """
    return patiently(
        web.address(url),
        lambda: _stream(web, url, part, report, size, patience),
        patience,
        done=lambda: part.size,
    )


def patiently(
    url: str, attempt: Callable[[], _T], patience: Patience, done: Callable[[], int] = lambda: 0
) -> _T:
    """What `attempt` gives, tried again while there is hope; `done` counts the bytes so far."""
    mark, fruitless = done(), 0
    while True:
        try:
            return attempt()
        except (httpx2.HTTPError, Interrupted) as error:
            moved = done() - mark >= patience.progress
            mark, fruitless = max(mark, done()), 0 if moved else fruitless + 1
            if fruitless > len(patience.pauses) or _nobody_there(error, done()):
                raise ModelFileError(_unreachable(url, error)) from None
            asked = error.after if isinstance(error, Interrupted) else 0.0
            pause = max(patience.pauses[max(fruitless - 1, 0)], asked)
            log.warning("%s; trying again in %.0f s", error or type(error).__name__, pause)
            time.sleep(pause)


def check_status(response: httpx2.Response, name: str, *, hub: bool = True) -> None:
    """Raises Interrupted for what may pass, ModelFileError with a remedy for what will not."""
    status = response.status_code
    if status in (200, 206):
        return
    if status in _RETRIED:
        raise Interrupted(f"the server answers {status}", _retry_after(response))
    known = response.headers.get("x-error-code", "")
    if known == "RepoNotFound":
        raise ModelFileError(
            f"{name} does not exist, or is private; check its name, or set HF_TOKEN to your access "
            "token"
        )
    if hub and status in (401, 403):
        check = "" if status == 403 or known == "GatedRepo" else "check its name, "
        raise ModelFileError(
            f"{name} needs permission ({status}); {check}accept the model's licence on its page "
            "and set HF_TOKEN to your access token, or run `hf auth login`"
        )
    cause = "does not exist" if status == 404 else f"answers {status}"
    raise ModelFileError(
        f"{name} {cause}; fetch the .gguf file yourself and give its path, or pick another model"
    )


def _nobody_there(error: Exception, done: int) -> bool:
    """No connection and nothing to lose: say so now rather than after all pauses."""
    return isinstance(error, httpx2.ConnectError) and not done


def _stream(
    web: Web, url: str, part: PartFile, report: Report, size: int | None, patience: Patience
) -> str | None:
    with web.get(url, _resume(part)) as response:
        if response.status_code == 416:
            part.restart()
        check_status(response, str(response.url), hub=is_hub(url))
        if response.status_code != 206:
            part.restart(_strong_tag(response))
        elif not response.headers.get("content-range", "").startswith(f"bytes {part.size}-"):
            part.restart()
            raise Interrupted("the server sent another range than asked for")
        total = _total(response, part.size)
        _check_size(response, part, total, size)
        part.reserve((total or size or 0) - part.size)
        pace = _Pace(part, patience)
        for chunk in response.iter_raw():
            part.write(chunk)
            report(part.size, total)
            pace.check()
    if size is not None and part.size < size:
        raise Interrupted(f"{part.size} of {size} bytes came")
    return _named_checksum(response)


class _Pace:
    """A server that drips keeps a connection open for ever without a single timeout."""

    def __init__(self, part: PartFile, patience: Patience) -> None:
        self._part, self._patience = part, patience
        self._mark, self._since = part.size, time.monotonic()

    def check(self) -> None:
        now = time.monotonic()
        if now - self._since < self._patience.stall:
            return
        came = self._part.size - self._mark
        if came < self._patience.least:
            raise Interrupted(f"only {came} bytes came in {now - self._since:.0f} s")
        self._mark, self._since = self._part.size, now


def _resume(part: PartFile) -> dict[str, str]:
    """Without a strong tag, bytes of two versions could be joined: then start again."""
    if not part.size or not part.tag:
        return {}
    return {"Range": f"bytes={part.size}-", "If-Range": part.tag}


def _check_size(
    response: httpx2.Response, part: PartFile, total: int | None, size: int | None
) -> None:
    if size is None or total is None or size == total:
        return
    part.restart()
    raise ModelFileError(
        f"{response.url} has {total} bytes instead of {size}; fetch it from another network, or "
        "pick another model"
    )


def _strong_tag(response: httpx2.Response) -> str | None:
    tag = response.headers.get("etag", "")
    return None if tag.startswith("W/") else tag or None


def _total(response: httpx2.Response, start: int) -> int | None:
    length = response.headers.get("content-length", "")
    return start + int(length) if length.isdigit() else None


def _retry_after(response: httpx2.Response) -> float:
    seconds = response.headers.get("retry-after", "")
    return min(float(seconds), _LONGEST_WAIT) if seconds.isdigit() else 0.0


def _named_checksum(response: httpx2.Response) -> str | None:
    """Hugging Face names the file's SHA-256 on the answer that redirects to its storage."""
    for answer in (*response.history, response):
        value = answer.headers.get("x-linked-etag", "").strip('"')
        if _SHA256.fullmatch(value):
            return str(value)
    return None


def _unreachable(url: str, error: Exception) -> str:
    return (
        f"cannot fetch {url}: {error or type(error).__name__}; check the network "
        "(HTTPS_PROXY, HF_ENDPOINT) and run the command again, it goes on where it stopped"
    )
