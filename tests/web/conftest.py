"""The page in Debian's Chromium, driven by Playwright; nothing of it may come from elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.e2e.conftest import Server, Start, start

__all__ = ["start"]

Open = Callable[..., Page]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Playwright's loop runs as long, and tests with loops of their own cannot."""
    found = shutil.which("chromium")
    if found is None:
        assert "CI" not in os.environ, "CI installs Chromium"
        pytest.skip("there is no chromium; on Debian: apt install chromium")
    alone = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=alone)
        yield launched
        launched.close()


class Watch:
    """What a page did that it may not: requests elsewhere, errors in its code or its policy."""

    def __init__(self, base: str) -> None:
        self._base = base
        self.wrong: list[str] = []

    def of(self, page: Page) -> None:
        page.on("request", self._request)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("console", self._console)

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"{self._base}/", "blob:", "data:")):
            self.wrong.append(f"asked elsewhere: {request.url}")

    def _console(self, message: ConsoleMessage) -> None:
        """The browser tells answers that are errors, too; those are the server's to give."""
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(f"console: {message.text}")


@pytest.fixture
def show(browser: Browser) -> Iterator[Open]:
    """Opens the page of a server, in a browser that has never seen it."""
    watched, contexts = [], []

    def opened(server: Server, path: str = "/", **context: object) -> Page:
        watch = Watch(server.base)
        contexts.append(browser.new_context(accept_downloads=True, **context))
        contexts[-1].set_default_timeout(10_000)
        page = contexts[-1].new_page()
        watch.of(page)
        watched.append(watch)
        page.goto(server.base + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [wrong for watch in watched for wrong in watch.wrong] == []


@pytest.fixture
def server(start: Start) -> Server:
    return start("echo=echo:rate=200")
