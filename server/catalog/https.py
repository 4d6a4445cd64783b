"""Files over HTTPS, Hugging Face above all: streamed, resumed with Range, retried."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence

import httpx2

from server.core.errors import ModelFileError

from .part import PartFile

HUGGING_FACE = "https://huggingface.co"
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each retry that follows a try without progress."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_RETRIED = {408, 416, 429, 500, 502, 503, 504}

Report = Callable[[int, int | None], None]
"""Called with the bytes done and, when known, the bytes in all."""


class _Interrupted(Exception):
    """The transfer ended early; what came is kept."""


def fetch_https(
    url: str,
    part: PartFile,
    report: Report,
    *,
    environ: Mapping[str, str],
    pauses: Sequence[float] = PAUSES,
) -> str | None:
    """Bring `part` to the whole file. Returns the SHA-256 the server names, if it names one."""
    address, headers = _address(url, environ)
    with httpx2.Client(headers=headers, follow_redirects=True, timeout=30.0) as client:
        fruitless = 0
        while True:
            size = part.size
            try:
                return _stream(client, address, part, report)
            except (httpx2.HTTPError, _Interrupted) as error:
                fruitless = 0 if part.size > size else fruitless + 1
                if fruitless > len(pauses) or _nobody_there(error, part):
                    raise ModelFileError(_unreachable(address, error)) from None
            time.sleep(pauses[fruitless - 1] if fruitless else 0)


def _address(url: str, environ: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Where to ask and with which headers. The token goes to Hugging Face (or its mirror) alone."""
    headers = {"Accept-Encoding": "identity"}
    if not url.startswith(f"{HUGGING_FACE}/"):
        return url, headers
    if environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise ModelFileError(f"cannot fetch {url}: HF_HUB_OFFLINE is set; unset it to download")
    endpoint = (environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")
    if not endpoint.startswith(("https://", "http://")):
        raise ModelFileError(f"HF_ENDPOINT={endpoint} is not an address; it starts with https://")
    token = environ.get("HF_TOKEN", "").strip()
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return endpoint + url.removeprefix(HUGGING_FACE), headers


def _nobody_there(error: Exception, part: PartFile) -> bool:
    """No connection and nothing to lose: say so now rather than after all pauses."""
    return isinstance(error, httpx2.ConnectError) and not part.size


def _stream(client: httpx2.Client, url: str, part: PartFile, report: Report) -> str | None:
    with client.stream("GET", url, headers=_resume(part)) as response:
        _check_status(response, part)
        if response.status_code != 206:
            part.restart(_strong_tag(response))
        elif not response.headers.get("content-range", "").startswith(f"bytes {part.size}-"):
            part.restart()
            raise _Interrupted("the server sent another range than asked for")
        total = _total(response, part.size)
        part.reserve((total or 0) - part.size)
        for chunk in response.iter_bytes():
            part.write(chunk)
            report(part.size, total)
    if total is not None and part.size != total:
        raise _Interrupted(f"{part.size} of {total} bytes came")
    return _named_checksum(response)


def _resume(part: PartFile) -> dict[str, str]:
    """Without a strong tag, bytes of two versions could be joined: then start again."""
    if not part.size or not part.tag:
        return {}
    return {"Range": f"bytes={part.size}-", "If-Range": part.tag}


def _check_status(response: httpx2.Response, part: PartFile) -> None:
    status, url = response.status_code, response.url
    if status in (200, 206):
        return
    if status in _RETRIED:
        if status == 416:
            part.restart()
        raise _Interrupted(f"the server answers {status}")
    if status in (401, 403):
        raise ModelFileError(
            f"{url} needs permission ({status}); accept the model's licence on its page and set "
            "HF_TOKEN to your access token"
        )
    cause = "does not exist" if status == 404 else f"answers {status}"
    raise ModelFileError(
        f"{url} {cause}; fetch the .gguf file yourself and give its path, or pick another model"
    )


def _strong_tag(response: httpx2.Response) -> str | None:
    tag = response.headers.get("etag", "")
    return None if tag.startswith("W/") else tag or None


def _total(response: httpx2.Response, start: int) -> int | None:
    length = response.headers.get("content-length", "")
    return start + int(length) if length.isdigit() else None


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
