"""The real ASGI app over a fake pool, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import httpx2
import pytest
from fastapi import FastAPI
from msgspec import structs

from server.app import admission_of, create_app
from server.metrics.exporter import Exporter
from server.services.chat import ChatService
from server.settings import Settings
from tests.fakes import FakeEngine, FakeFormat, FakePool

PAGE = "http://localhost:3000"
"""Every test is a web page too: CORS headers belong on every answer."""
Serve = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]


def make_app(
    *engines: FakeEngine, format: FakeFormat | None = None, **settings: object
) -> tuple[FastAPI, FakePool]:
    """`format` is every model's, in place of the one its template calls for."""
    pool = FakePool(*(engines or (FakeEngine(),)))
    exporter = Exporter(pool.names())
    made = Settings(**settings)
    app = create_app(made, pool, exporter, {}, admission_of(made, pool, exporter))
    if format is not None:
        chat = ChatService(
            pool, exporter, max_choices=16, recommended={}, format_of=lambda _: format
        )
        app.state.ingle = structs.replace(app.state.ingle, chat=chat)
    return app, pool


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
            transport=transport, base_url="http://localhost", headers={"origin": PAGE}
        ) as client:
            yield client

    return serving
