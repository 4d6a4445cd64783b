"""A server that runs, as its commands on the terminal reach it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.core.errors import IngleError, StartupError

if TYPE_CHECKING:
    from server.settings import Settings

URL_VARIABLE = "INGLE_URL"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help=f"Where the server is. Default: {URL_VARIABLE}, else where the settings say.",
    ),
]


class Refused(IngleError):
    """The server said no; the message is its own."""

    def __init__(self, status: int, message: str, code: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.code_given = code


class Remote:
    """Asks it, with the admin key or else an API key of the settings."""

    def __init__(self, url: str, key: str | None) -> None:
        import httpx2

        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        timeout = httpx2.Timeout(None, connect=5.0)
        self._client = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout)

    @classmethod
    def of(cls, settings: Settings, url: str | None = None) -> Remote:
        from .banner import base_url

        keys = [*filter(None, [settings.admin_key]), *settings.api_key]
        key = keys[0].get_secret_value() if keys else None
        if key is None and settings.api_key_file is not None:
            from server.api.keys import read_keys

            key = read_keys(settings.api_key_file)[0]
        return cls(url or os.environ.get(URL_VARIABLE) or base_url(settings), key)

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str) -> Any:
        return self._ask("GET", path)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        with self._reaching():
            response = self._client.request(method, path, json=body)
            _check(response.status_code, response.content)
            return response.json()

    def events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What comes of a stream, until it is done. Raises Refused for an error on its way."""
        with self._reaching(), self._client.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                _check(response.status_code, response.read())
            for line in response.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise _refused(response.status_code, event)
                yield event

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except httpx2.ConnectError:
            raise StartupError(
                f"no server answers at {self.url}; start one with `ingle serve`, or say where it"
                " is with --url"
            ) from None
        except httpx2.InvalidURL as error:
            raise StartupError(f"{self.url} is not a URL: {error}") from None
        except httpx2.TransportError as error:
            reason = str(error) or type(error).__name__
            raise StartupError(f"the server at {self.url} went away: {reason}") from None
        except json.JSONDecodeError:
            raise StartupError(f"what answers at {self.url} is no Ingle server") from None


def open_remote(url: str | None, config: Path | None) -> Remote:
    from server.settings import load_settings

    return Remote.of(load_settings({}, config), url)


def _check(status: int, content: bytes) -> None:
    if status < 400:
        return
    try:
        body = json.loads(content)
    except ValueError:
        body = {}
    raise _refused(status, body if isinstance(body, dict) else {})


def _refused(status: int, body: dict[str, Any]) -> Refused:
    error = body.get("error")
    error = error if isinstance(error, dict) else {}
    message = error.get("message") or f"the server answers {status}"
    if status == 401:
        message += " Set INGLE_ADMIN_KEY or INGLE_API_KEY."
    return Refused(status, message, error.get("code"))
