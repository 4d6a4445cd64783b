"""The real ASGI app over a fake pool, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import httpx2
import pytest
from fastapi import FastAPI

from server.app import create_app
from server.metrics.exporter import Exporter
from server.settings import Settings
from tests.fakes import FakeEngine, FakePool

PAGE = "http://localhost:3000"
"""Every test is a web page too: CORS headers belong on every answer."""
Serve = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]


def make_app(*engines: FakeEngine, **settings: object) -> tuple[FastAPI, FakePool]:
    pool = FakePool(*(engines or (FakeEngine(),)))
    return create_app(Settings(**settings), pool, Exporter(pool.names()), {}), pool


@pytest.fixture
def serve() -> Serve:
    """A client, of a web page on this machine, of an app with these engines and settings."""

    @contextlib.asynccontextmanager
    async def serving(
        *engines: FakeEngine, ready: bool = True, **settings: object
    ) -> AsyncIterator[httpx2.AsyncClient]:
        app, pool = make_app(*engines, **settings)
        pool.ready = ready
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://ingle", headers={"origin": PAGE}
        ) as client:
            yield client

    return serving
