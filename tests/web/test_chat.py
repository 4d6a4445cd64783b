"""A conversation in the browser, with an engine that says what it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Server, Start, until

from .conftest import Open

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

SLOW = "many words " * 60


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send", exact=True).click()


def answered(page: Page, text: str) -> None:
    """The last answer is there, whole."""
    expect(page.locator("#turns .assistant .said").last).to_have_text(text)
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()


def test_an_answer_comes_with_its_figures_and_stays(server: Server, show: Open) -> None:
    page = show(server)
    say(page, "Hello there")
    answered(page, "Hello there")
    figures = page.locator(".figures")
    expect(figures).to_contain_text("echo · 11 tokens")
    expect(figures).to_contain_text("tokens/s")
    expect(figures).to_contain_text("first after")
    expect(figures).to_contain_text("of them known")
    page.reload()
    answered(page, "Hello there")
    expect(page.locator("#list li")).to_have_text(["Hello there✕"])


def test_text_of_the_model_looks_as_it_is_meant(server: Server, show: Open) -> None:
    page = show(server, permissions=["clipboard-read", "clipboard-write"])
    say(page, "# Title\n\n- **one**\n\n```python\nprint(1)\n```\n\n| a | b |\n|-|-|\n| 1 | 2 |")
    said = page.locator("#turns .assistant .said")
    expect(said.locator("h1")).to_have_text("Title")
    expect(said.locator("li strong")).to_have_text("one")
    expect(said.locator("td")).to_have_text(["1", "2"])
    said.locator("pre").get_by_role("button", name="Copy").click()
    expect(said.locator("pre").get_by_role("button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "print(1)\n"


def test_text_of_the_model_is_nobodys_code(server: Server, show: Open) -> None:
    """`show` sees that nothing is asked elsewhere and that no policy is broken."""
    page = show(server)
    say(
        page,
        "<img src=x onerror=hacked=1><script>hacked=1</script><svg onload=hacked=1></svg>"
        "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe> [x](javascript:hacked=1)"
        " ![y](http://127.0.0.1:9/pixel.png) <a href='http://127.0.0.1:9/' onclick=hacked=1>go</a>"
        " <form action=http://127.0.0.1:9/><input name=a></form>",
    )
    said = page.locator("#turns .assistant .said")
    expect(said).to_contain_text("go")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    for tag in ("img", "script", "svg", "iframe", "form", "input", "[onclick]"):
        assert said.locator(tag).count() == 0, tag
    hrefs = [link.get_attribute("href") for link in said.locator("a").all()]
    assert "http://127.0.0.1:9/" in hrefs
    assert not [href for href in hrefs if href and href.startswith("javascript")]
    assert page.evaluate("typeof hacked") == "undefined"


def test_settings_and_what_was_said_are_sent(server: Server, show: Open) -> None:
    page = show(server)
    page.get_by_text("Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Seed").fill("7")
    say(page, "one")
    answered(page, "one")
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, "two")
    assert asked.value.post_data_json == {
        "model": "echo",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "one"},
            {"role": "user", "content": "two"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "seed": 7,
    }
    answered(page, "two")


def test_an_answer_can_be_stopped_and_asked_for_again(start: Start, show: Open) -> None:
    server = start("echo=echo:rate=50")
    page = show(server)
    say(page, SLOW)
    expect(page.locator("#turns .assistant .said")).to_contain_text("many words")
    page.get_by_role("button", name="Stop").click()
    until(lambda: server.metric("ingle_requests_running") == 0)
    expect(page.locator(".figures")).to_contain_text("stopped")
    part = page.locator("#turns .assistant .said").inner_text()
    assert 0 < len(part) < len(SLOW)
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Edited message").fill("short")
    page.locator("#turns").get_by_role("button", name="Send").click()
    answered(page, "short")
    expect(page.locator("#turns > li")).to_have_count(2)
    with page.expect_request("**/v1/chat/completions") as asked:
        page.get_by_role("button", name="Regenerate").click()
    assert [said["content"] for said in asked.value.post_data_json["messages"]] == ["short"]
    answered(page, "short")


def test_conversations_are_exported_imported_and_deleted(
    server: Server, show: Open, tmp_path: Path
) -> None:
    page = show(server)
    say(page, "first")
    answered(page, "first")
    page.get_by_role("button", name="New chat").click()
    say(page, "second")
    answered(page, "second")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export all").click()
    file = tmp_path / "all.json"
    saved.value.save_as(file)
    assert [chat["title"] for chat in json.loads(file.read_text())] == ["second", "first"]
    page.on("dialog", lambda dialog: dialog.accept())
    for title in ("first", "second"):
        page.get_by_role("button", name=f"Delete {title}").click()
    expect(page.locator("#list li")).to_have_count(0)
    page.locator("#import").set_input_files(file)
    expect(page.locator("#list li")).to_have_count(2)
    page.get_by_role("button", name="first", exact=True).click()
    answered(page, "first")
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"turns": [{"role": "system"}]}')
    page.locator("#import").set_input_files(wrong)
    expect(page.locator("#status")).to_have_text("This file is no export of conversations.")


def test_a_server_with_keys_asks_for_one(start: Start, show: Open) -> None:
    server = start(api_key="sk-right")
    page = show(server)
    page.get_by_label("API key, to chat").fill("sk-right")
    page.get_by_role("button", name="Save").click()
    say(page, "hello")
    answered(page, "hello")


def test_what_the_server_says_of_an_error_is_shown(start: Start, show: Open) -> None:
    page = show(start(ctx=256))
    say(page, "too long " * 100)
    expect(page.locator("#turns .assistant .error")).to_contain_text("context")
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Edited message").fill("hello")
    page.locator("#turns").get_by_role("button", name="Send").click()
    answered(page, "hello")
