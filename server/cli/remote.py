"""A server that runs, as commands of the terminal reach it."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from server.core.errors import ConfigError, IngleError

if TYPE_CHECKING:
    from server.settings import Loaded

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Where the server is. Default: INGLE_URL, then the host and port of the settings.",
    ),
]
AdminKey = Annotated[
    str | None,
    typer.Option(
        "--admin-key",
        metavar="KEY",
        help="The server's admin key. INGLE_ADMIN_KEY keeps it out of the process list.",
    ),
]

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
_LONGEST_ERROR = 500


class Unreachable(IngleError):
    """Nothing answers there, or nothing that is understood."""


class Refused(IngleError):
    """The server said no; the message is its own. `status` is HTTP's."""

    def __init__(self, status: int, message: str, code: str | None) -> None:
        super().__init__(message, code=code)
        self.status = status


class Remote:
    """All methods raise Unreachable and Refused."""

    def __init__(self, url: str, key: str | None = None, *, kind: str = "api") -> None:
        """`kind` is that of the key. Raises ConfigError for what is no address."""
        import httpx2

        self.url = _checked(url)
        self._kind = kind
        self._client = httpx2.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            trust_env=not _is_here(self.url),
        )

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, seconds: float = _ANSWER_SECONDS) -> Any:
        return self._ask("GET", path, None, seconds)

    def post(self, path: str, body: Mapping[str, Any], seconds: float | None = None) -> Any:
        """Waits as long as it takes, unless `seconds` are given."""
        return self._ask("POST", path, body, seconds)

    def delete(self, path: str) -> Any:
        return self._ask("DELETE", path, None, _ANSWER_SECONDS)

    def events(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any]]:
        """What comes of a stream, until it is done; closing it ends the request."""
        from server.bench.sse import EventParser

        parser = EventParser()
        with (
            self._reaching(),
            self._client.stream("POST", path, json=body, timeout=_patience(None)) as response,
        ):
            if response.status_code != 200:
                _check(response.status_code, response.read())
            for data in response.iter_bytes():
                for event in parser.feed(data):
                    if event == b"[DONE]":
                        return
                    yield _checked_event(event)
        raise Unreachable(f"the answer of the server at {self.url} was cut short")

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float | None
    ) -> Any:
        with self._reaching():
            response = self._client.request(method, path, json=body, timeout=_patience(seconds))
            _check(response.status_code, response.content)
            return response.json()

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except Refused as error:
            if error.status != 401:
                raise
            kind = self._kind
            raise Refused(
                401,
                f"{error.message} Pass the server's key with --{kind}-key or in"
                f" INGLE_{kind.upper()}_KEY",
                error.error_code,
            ) from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise Unreachable(
                f"no server answers at {self.url}; start one with `ingle serve`, or say with --url"
                " where it is"
            ) from None
        except httpx2.TimeoutException:
            raise Unreachable(f"the server at {self.url} does not answer in time") from None
        except httpx2.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"the server at {self.url} went away: {reason}") from None
        except ValueError:
            raise Unreachable(
                f"what answers at {self.url} is no such server; say with --url where it is"
            ) from None


def administered(url: str | None, admin_key: str | None, config: Path | None) -> Remote:
    """The server that the settings mean, to look after it."""
    from server.settings import read_settings

    loaded = read_settings({"admin_key": admin_key}, config)
    return remote_of(loaded, url, ("admin_key", "api_key", "api_key_file"))


def remote_of(loaded: Loaded, url: str | None, keys: Sequence[str]) -> Remote:
    """`keys` are the settings that may hold the key to send, the best first.

    Keys of the settings file are those of its own server and sent to no other.
    """
    from server.settings import URL_VARIABLE

    from .banner import base_url

    own = base_url(loaded.settings)
    there = url or os.environ.get(URL_VARIABLE) or own
    known = [
        name for name in keys if there.rstrip("/") == own or loaded.origins[name].kind != "file"
    ]
    key = next((key for name in known if (key := _key_of(loaded, name))), None)
    return Remote(there, key, kind=keys[0].removesuffix("_key"))


def _key_of(loaded: Loaded, name: str) -> str | None:
    settings = loaded.settings
    if name == "admin_key":
        return settings.admin_key.get_secret_value() if settings.admin_key else None
    if name == "api_key":
        return settings.api_key[0].get_secret_value() if settings.api_key else None
    if settings.api_key_file is None:
        return None
    from server.api.keys import read_keys

    return read_keys(settings.api_key_file)[0]


def _checked(url: str) -> str:
    """With or without the /v1 that SDKs want."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ConfigError(f"{url} is not a URL; give one like http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1")


def _is_here(url: str) -> bool:
    """A proxy is of no use on the way to this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _patience(seconds: float | None) -> Any:
    import httpx2

    return httpx2.Timeout(seconds, connect=_CONNECT_SECONDS)


def _checked_event(data: bytes) -> dict[str, Any]:
    event = json.loads(data)
    if not isinstance(event, dict):
        raise ValueError("not an event")
    if "error" in event:
        raise _refused(200, event)
    return event


def _check(status: int, content: bytes) -> None:
    if status < 400:
        return
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    raise _refused(status, body)


def _refused(status: int, body: object) -> Refused:
    error = body.get("error") if isinstance(body, dict) else None
    told = error if isinstance(error, dict) else {}
    message = str(told.get("message") or f"the server answers with status {status}")
    message = " ".join(message[:_LONGEST_ERROR].split())
    code = told.get("code")
    return Refused(status, message, code if isinstance(code, str) else "")
