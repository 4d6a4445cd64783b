"""GET over the web, no further than asked: redirects are checked, the token stays at its hub."""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2

import server
from server.core.errors import ModelFileError

from .hub_home import HUGGING_FACE, hub_token, is_offline

_MAX_REDIRECTS = 10


class Web:
    """One client. `timeout` in seconds bounds every silence: to connect, between two pieces."""

    def __init__(self, environ: Mapping[str, str], *, timeout: float = 30.0) -> None:
        self._environ = environ
        self._client = httpx2.Client(
            headers={"User-Agent": f"ingle/{server.__version__}", "Accept-Encoding": "identity"},
            follow_redirects=False,
            timeout=timeout,
        )

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def address(self, url: str) -> str:
        """Where `url` is asked for: HF_ENDPOINT takes the place of Hugging Face."""
        if not is_hub(url):
            return url
        if is_offline(self._environ):
            raise ModelFileError(f"cannot fetch {url}: HF_HUB_OFFLINE is set; unset it to download")
        return self._endpoint() + url.removeprefix(HUGGING_FACE)

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[httpx2.Response]:
        """The answer to a GET, its body not yet read; `history` holds the redirects to it.

        Raises ModelFileError for a redirect that is not followed, httpx2.HTTPError for the network.
        """
        address = source = self.address(url)
        history: list[httpx2.Response] = []
        while len(history) <= _MAX_REDIRECTS:
            sent = {**(headers or {}), **self._authorization(address)}
            with self._streamed(address, sent) as response:
                if not response.has_redirect_location:
                    response.history = history
                    yield response
                    return
                history.append(response)
                address = _followed(source, response)
        raise ModelFileError(f"{url} redirects more than {_MAX_REDIRECTS} times; check the address")

    @contextmanager
    def _streamed(self, address: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
        try:
            request = self._client.build_request("GET", address, headers=headers)
        except httpx2.InvalidURL as error:
            raise ModelFileError(f"{address!r} is not an address: {error}") from None
        response = self._client.send(request, stream=True)
        try:
            yield response
        finally:
            response.close()

    def _endpoint(self) -> str:
        endpoint = (self._environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")
        if not endpoint.startswith(("https://", "http://")):
            raise ModelFileError(
                f"HF_ENDPOINT={endpoint} is not an address; it starts with https://"
            )
        return endpoint

    def _authorization(self, address: str) -> dict[str, str]:
        """The token goes to Hugging Face, or the mirror that stands in for it, alone."""
        if _origin(address) != _origin(self._endpoint()):
            return {}
        token = hub_token(self._environ)
        return {"Authorization": f"Bearer {token}"} if token else {}


def is_private(host: str) -> bool:
    """Whether a name or an address leads into this machine or its network. Asks the resolver."""
    try:
        return not _is_global(host)
    except ValueError:
        pass
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return not all(_is_global(address) for address in found)


def _is_global(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_global


def _followed(source: str, response: httpx2.Response) -> str:
    """Where the redirect leads. Raises ModelFileError for where a model does not lie."""
    location = response.headers["location"]
    start = f"{source} redirects to {_shown(location)}"
    try:
        target = response.url.join(location)
        host = target.host
    except httpx2.InvalidURL:
        raise ModelFileError(f"{start}, which is not an address; check the source") from None
    if target.scheme not in ("http", "https") or not host:
        raise ModelFileError(f"{start}, which is not followed; give another source")
    if target.scheme == "http" and response.url.scheme == "https":
        raise ModelFileError(f"{start}, which is not encrypted; give another source")
    if _leads_inside(host, str(target)) and not _leads_inside(urlsplit(source).hostname, source):
        raise ModelFileError(
            f"{start}, an address of a private network, which is not followed; if you trust it, "
            "give that address itself"
        )
    return str(target)


def _leads_inside(host: str | None, url: str) -> bool:
    """Behind a proxy names mean what they mean to the proxy: only what they say counts."""
    host = (host or "").rstrip(".").lower()
    if host == "localhost" or host.endswith((".localhost", ".internal", ".local")):
        return True
    if not _is_proxied(url):
        return is_private(host)
    try:
        return not _is_global(host)
    except ValueError:
        return False


def _is_proxied(url: str) -> bool:
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    if not (proxies.get(parts.scheme) or proxies.get("all")):
        return False
    return not urllib.request.proxy_bypass(parts.hostname or "")


def is_hub(url: str) -> bool:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" == HUGGING_FACE


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:200])
