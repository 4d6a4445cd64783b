"""A conversation as a person at a terminal has it, against a server that answers as Ingle does."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import command, environment
from tests.cli.fake_server import FakeServer, fake_server
from tests.cli.terminal import Terminal

CHAT = "/v1/chat/completions"


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


@pytest.fixture
def terminal(tmp_path: Path, fake: FakeServer) -> Iterator[Terminal]:
    with_terminal = Terminal(
        tmp_path, command("run", "tiny", "--url", fake.url), environment(tmp_path)
    )
    try:
        with_terminal.until("tiny; /help for help\n>>>")
        yield with_terminal
    finally:
        with_terminal.close()


def asked(fake: FakeServer) -> list[str]:
    """What the last request says, from the first message on."""
    return [message["content"] for message in fake.bodies(CHAT)[-1]["messages"]]


def answered(terminal: Terminal, times: int) -> str:
    return terminal.until(lambda screen: screen.count("first after") == times)


def test_a_conversation_is_remembered_and_left(terminal: Terminal, fake: FakeServer) -> None:
    terminal.say("say hello")
    screen = answered(terminal, 1)
    assert ">>> say hello\nsay hello\n4 tokens, " in screen
    assert " tokens/s, first after 0." in screen
    terminal.say("again")
    answered(terminal, 2)
    assert asked(fake) == ["say hello", "say hello", "again"]
    terminal.press("C-d")
    assert terminal.exit_code() == 0


def test_ctrl_c_stops_the_answer_and_keeps_what_came(terminal: Terminal, fake: FakeServer) -> None:
    terminal.say("for ever")
    terminal.until(" 5")
    terminal.press("C-c")
    screen = terminal.until("stopped, first after")
    assert fake.left.wait(10), "the server heard of it"
    terminal.say("go on")
    answered(terminal, 2)
    _, kept, question = asked(fake)
    assert question == "go on"
    assert kept.startswith("for ever 1 2 3 4 5") and kept in screen.replace("\n", "")
    assert "Traceback" not in terminal.screen()


def test_ctrl_c_at_the_prompt_leaves_nothing_but_a_hint(
    terminal: Terminal, fake: FakeServer
) -> None:
    terminal.type("not this")
    terminal.press("C-c")
    terminal.until("Ctrl-D or /bye leaves")
    terminal.say("this")
    answered(terminal, 1)
    assert asked(fake) == ["this"]
    terminal.say("/bye")
    assert terminal.exit_code() == 0


def test_several_lines_by_fence_by_key_and_by_paste(terminal: Terminal, fake: FakeServer) -> None:
    terminal.say('"""one')
    terminal.until("\n...")
    terminal.say('two"""')
    answered(terminal, 1)
    assert asked(fake)[-1] == "one\ntwo"
    terminal.type("three")
    terminal.press("M-Enter")
    terminal.say("four")
    answered(terminal, 2)
    assert asked(fake)[-1] == "three\nfour"
    terminal.paste("five\n\n/bye\n")
    terminal.press("Enter")
    answered(terminal, 3)
    assert asked(fake)[-1] == "five\n\n/bye"


def test_what_it_thinks_is_dim_and_what_a_model_writes_stays_text(
    terminal: Terminal, fake: FakeServer
) -> None:
    terminal.say("think of red **bold**")
    answered(terminal, 1)
    shown = terminal.coloured()
    assert "\x1b[2mlet me see" in shown
    assert "\\x1b[31mred **bold**" in terminal.screen()
    assert "\x1b[31m" not in shown
    del fake


def test_a_resize_in_the_middle_breaks_nothing(terminal: Terminal, fake: FakeServer) -> None:
    terminal.type("a rather long question " * 4)
    terminal.resize(40)
    terminal.type("that was resized")
    terminal.press("Enter")
    answered(terminal, 1)
    assert asked(fake) == ["a rather long question " * 4 + "that was resized"]
    terminal.say("for ever")
    terminal.until(" 3")
    terminal.resize(100)
    terminal.until(" 30")
    terminal.press("C-c")
    terminal.until("stopped, first")
    terminal.say("still there")
    answered(terminal, 3)
    assert asked(fake)[-1] == "still there"


def test_commands(terminal: Terminal, fake: FakeServer, tmp_path: Path) -> None:
    terminal.say("/help")
    terminal.until("Ctrl-C stops an answer")
    terminal.say("/system Be brief.")
    terminal.until("\nBe brief.")
    terminal.say("/set temperature 0.25")
    terminal.until("temperature = 0.25")
    terminal.say("/set temperature warm")
    terminal.until("error: temperature is a number, not warm")
    terminal.say("/sytem")
    terminal.until("there is no /sytem; did you mean /system")
    terminal.say("one")
    answered(terminal, 1)
    assert asked(fake) == ["Be brief.", "one"]
    assert fake.bodies(CHAT)[-1]["temperature"] == 0.25

    terminal.say("/save talk.json")
    terminal.until("saved in talk.json")
    saved = tmp_path / "talk.json"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert [one["role"] for one in json.loads(saved.read_text())["messages"]] == [
        "user",
        "assistant",
    ]
    terminal.say("/clear")
    terminal.until("a new conversation")
    terminal.say("/load talk.json")
    terminal.until("going on with talk.json")
    terminal.say("/retry")
    answered(terminal, 2)
    assert asked(fake) == ["Be brief.", "one"]
    terminal.say("two")
    answered(terminal, 3)
    assert asked(fake) == ["Be brief.", "one", "one", "two"]
    terminal.say("/system -")
    terminal.until("there is no system prompt")
    terminal.say("/load none.json")
    terminal.until("error: cannot read none.json: No such file")
    saved.write_text('{"messages": [{"role": "user"}]}')
    terminal.say("/load talk.json")
    terminal.until("error: talk.json is no conversation that /save wrote")
    terminal.say("/exit")
    assert terminal.exit_code() == 0


def test_a_refusal_keeps_the_conversation(terminal: Terminal, fake: FakeServer) -> None:
    terminal.say("one")
    answered(terminal, 1)
    terminal.say("refuse this")
    terminal.until("error: Invalid 'temperature'.")
    terminal.say("break this")
    terminal.until("error: The engine ended.")
    terminal.say("two")
    answered(terminal, 2)
    assert asked(fake) == ["one", "one", "two"]


def test_what_was_typed_is_there_the_next_time(
    terminal: Terminal, fake: FakeServer, tmp_path: Path
) -> None:
    terminal.say("remember me")
    answered(terminal, 1)
    terminal.press("C-d")
    assert terminal.exit_code() == 0
    terminal.close()
    kept = tmp_path / ".local/state/ingle/history"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    again = Terminal(tmp_path, command("run", "tiny", "--url", fake.url), environment(tmp_path))
    try:
        again.until("/help for help\n>>>")
        again.press("Up")
        again.until(">>> remember me")
        again.press("Enter")
        answered(again, 1)
    finally:
        again.close()


def test_what_is_typed_meanwhile_does_not_stand_in_the_answer(
    terminal: Terminal, fake: FakeServer
) -> None:
    terminal.say("for ever")
    terminal.until(" 3")
    terminal.type("ahead")
    terminal.until(" 20")
    assert "ahead" not in terminal.screen()
    terminal.press("C-c")
    terminal.until("stopped, first")
    del fake


def test_a_single_answer_on_a_terminal_is_no_conversation(tmp_path: Path, fake: FakeServer) -> None:
    terminal = Terminal(
        tmp_path, command("run", "tiny", "hello", "--url", fake.url), environment(tmp_path)
    )
    try:
        assert terminal.exit_code() == 0
        assert terminal.screen().strip() == "hello"
    finally:
        terminal.close()
