"""Models, activity and the API's document in the browser; light, dark and on a phone."""

from __future__ import annotations

import concurrent.futures

import httpx2
import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import Server, Start, until

from .conftest import Open

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

PHONE = {"width": 360, "height": 700}


def test_models_are_seen_loaded_and_unloaded(start: Start, show: Open) -> None:
    server = start("echo=echo:", "other=echo:")
    page = show(server, "/#models")
    other = page.locator("tr[data-model=other]")
    expect(other).to_contain_text("loaded")
    expect(page.locator("#memory-text")).to_contain_text("are taken")
    other.get_by_role("button", name="Unload").click()
    expect(other.locator("td").nth(1)).to_have_text("unloaded")
    until(lambda: len(server.engines()) == 1)
    other.get_by_role("button", name="Load", exact=True).click()
    expect(other.locator("td").nth(1)).to_have_text("loaded")
    until(lambda: len(server.engines()) == 2)


def test_what_cannot_be_fetched_is_told(server: Server, show: Open) -> None:
    page = show(server, "/#models")
    page.get_by_label("Model to fetch").fill("no such model")
    page.get_by_role("button", name="Fetch").click()
    expect(page.locator("#pull-state")).to_contain_text("no such model")
    expect(page.locator("#pull-progress")).to_be_hidden()


def test_a_request_is_seen_and_cancelled(start: Start, show: Open) -> None:
    server = start("echo=echo:rate=20")
    body = {"model": "echo", "messages": [{"role": "user", "content": "many words " * 60}]}
    url = f"{server.base}/v1/chat/completions"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        headers = {"x-request-id": "mine"}
        asked = pool.submit(httpx2.post, url, json=body, headers=headers, timeout=60)
        page = show(server, "/#activity")
        running = page.locator("#running tr", has_text="mine")
        expect(running).to_contain_text("decode")
        running.get_by_role("button", name="Cancel").click()
        assert asked.result(20).status_code == 409
    ended = page.locator("#recent tr", has_text="mine")
    expect(ended).to_contain_text("request_cancelled")
    expect(page.locator("#running")).to_have_text("Nothing runs.")
    expect(page.locator("#recent")).not_to_contain_text("many words")


def test_who_may_not_look_after_the_server_is_told_how(start: Start, show: Open) -> None:
    server = start(admin_key="boss")
    page = show(server, "/#models")
    expect(page.locator("#models-refused")).to_contain_text("key")
    page.get_by_role("button", name="Keys").click()
    page.get_by_label("Admin key").fill("boss")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("tr[data-model=echo]")).to_contain_text("loaded")
    expect(page.locator("#models-refused")).to_be_hidden()


def test_the_api_is_described_without_the_network(server: Server, show: Open) -> None:
    page = show(server, "/docs")
    expect(page.locator("#api")).to_contain_text("/v1/chat/completions")


@pytest.mark.parametrize("view", ["chat", "models", "activity"])
def test_a_phone_is_wide_enough(server: Server, show: Open, view: str) -> None:
    page = show(server, f"/#{view}", viewport=PHONE)
    expect(page.locator(f"#{view}-view")).to_be_visible()
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0
    if view == "chat":
        assert page.locator("#conversations").is_hidden()
        page.get_by_role("button", name="Conversations").click()
        expect(page.get_by_role("button", name="New chat")).to_be_visible()


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_the_page_is_as_light_as_its_reader_wants(
    server: Server, show: Open, scheme: str, is_dark: bool
) -> None:
    page = show(server, color_scheme=scheme)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    assert (sum(levels) < 300) is is_dark


def test_a_server_that_goes_is_missed_and_found_again(start: Start, show: Open) -> None:
    server = start()
    page = show(server)
    expect(page.locator("#offline")).to_be_hidden()
    server.process.terminate()
    server.process.wait(10)
    expect(page.locator("#offline")).to_be_visible()
    start(port=server.port)
    expect(page.locator("#offline")).to_be_hidden()
