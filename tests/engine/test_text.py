"""Bytes to text, however they are cut; stop strings, wherever they begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.text import TextAssembler

TEXTS = st.text(st.sampled_from("ab \n<|>é€中文🦊👩‍🚀\u0301\u2028") | st.characters(codec="utf-8"))


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` in pieces, some of them empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _feed(assembler: TextAssembler, pieces: list[bytes]) -> tuple[str, str]:
    """What came out on the way, and what came at the end."""
    text = ""
    for piece in pieces:
        text += assembler.push(piece)
        if assembler.stopped:
            break
    return text, assembler.finish()


@given(TEXTS, st.data())
def test_any_cut_of_the_bytes_gives_the_same_text(text: str, data: st.DataObject) -> None:
    streamed, tail = _feed(TextAssembler(), data.draw(cut(text.encode())))
    assert streamed == text
    assert tail == ""


@given(TEXTS, st.data())
def test_no_step_sends_half_a_character(text: str, data: st.DataObject) -> None:
    assembler, sent = TextAssembler(), ""
    for piece in data.draw(cut(text.encode())):
        sent += assembler.push(piece)
        assert text.startswith(sent)


@given(
    st.text(st.sampled_from("abc")),
    st.lists(st.text(st.sampled_from("abc"), min_size=1, max_size=4), min_size=1, max_size=3),
    st.data(),
)
def test_text_ends_before_the_stop_and_not_earlier(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    assembler = TextAssembler(tuple(stops))
    streamed, tail = _feed(assembler, data.draw(cut(text.encode())))
    assert not any(stop in streamed + tail for stop in stops)
    if assembler.stopped:
        assert tail == ""
        assert text.startswith(streamed)
        assert any(text.startswith(stop, len(streamed)) for stop in stops)
    else:
        assert streamed + tail == text


@given(st.text(st.sampled_from("ab🦊")), st.text(st.sampled_from("ab🦊"), min_size=1, max_size=3))
def test_a_stop_is_found_as_early_as_in_the_whole_text(text: str, stop: str) -> None:
    """Byte by byte, as the slowest tokens come."""
    pieces = [bytes([byte]) for byte in text.encode()]
    streamed, tail = _feed(TextAssembler((stop,)), pieces)
    assert streamed + tail == text.partition(stop)[0]


def test_only_what_may_become_a_stop_is_held() -> None:
    assembler = TextAssembler(("\n\nUser:",))
    assert assembler.push(b"Hello\n") == "Hello"
    assert assembler.push(b"there\n\nUs") == "\nthere"
    assert assembler.push(b"ing it") == "\n\nUsing it"


def test_a_held_tail_is_released_at_the_end() -> None:
    assembler = TextAssembler(("\n\n",))
    assert assembler.push(b"done\n") == "done"
    assert assembler.finish() == "\n"


def test_a_stop_across_tokens_takes_the_rest_of_its_token_with_it() -> None:
    assembler = TextAssembler(("STOP",))
    assert assembler.push(b"one ST") == "one "
    assert assembler.push(b"OP two") == ""
    assert assembler.stopped
    assert assembler.push(b"three") == ""
    assert assembler.finish() == ""


@pytest.mark.parametrize("length", range(1, 4))
def test_a_character_cut_off_for_good_becomes_one_replacement(length: int) -> None:
    assembler = TextAssembler()
    assert assembler.push(b"ok " + "🦊".encode()[:length]) == "ok "
    assert assembler.finish() == "\ufffd"


def test_bytes_that_are_never_text_do_not_hold_up_the_rest() -> None:
    assembler = TextAssembler()
    assert assembler.push(b"a\xffb") == "a\ufffdb"


def test_a_stop_that_begins_in_a_held_character_is_seen_at_the_end() -> None:
    assembler = TextAssembler(("\ufffd",))
    assembler.push(b"x" + "🦊".encode()[:2])
    assert assembler.finish() == ""
    assert assembler.stopped


def test_empty_stop_strings_are_none() -> None:
    assembler = TextAssembler(("",))
    assert assembler.push(b"text") == "text"
    assert not assembler.stopped


HIDDEN = (("<think>", "</think>"), ("<call>", "</call>"))


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("<think>a stop here</think>b stop", "<think>a stop here</think>b "),
        ("a<call>stop</call><think>stop</think>stop", "a<call>stop</call><think>stop</think>"),
        ("stop<call>x</call>", ""),
        ("a<call>stop", "a<call>stop"),
        ("<cal stop>", "<cal "),
        ("<call><call>stop</call>stop", "<call><call>stop</call>"),
    ],
)
def test_what_is_hidden_holds_no_stop(text: str, visible: str) -> None:
    for size in range(1, len(text) + 1):
        pieces = [text.encode()[i : i + size] for i in range(0, len(text), size)]
        streamed, tail = _feed(TextAssembler(("stop",), HIDDEN), pieces)
        assert streamed + tail == visible


def test_an_opener_wins_over_a_stop_that_begins_it() -> None:
    assembler = TextAssembler(("<",), HIDDEN)
    assert assembler.push(b"a<") == "a"
    assert assembler.push(b"call>x<y</call>") == "<call>x<y</call>"
    assert assembler.push(b"<b") == ""
    assert assembler.stopped


def test_a_held_stop_counts_where_no_opener_came_of_it() -> None:
    assembler = TextAssembler(("<",), HIDDEN)
    assert assembler.push(b"a<cal") == "a"
    assert not assembler.stopped
    assert assembler.finish() == ""
    assert assembler.stopped


def test_an_answer_may_begin_hidden() -> None:
    assembler = TextAssembler(("END",), (("", "</think>"),))
    assert assembler.push(b"END of it</thi") == "END of it"
    assert assembler.push(b"nk>so END") == "</think>so "
    assert assembler.stopped


def test_of_two_stop_strings_the_one_that_is_whole_first_ends_the_text() -> None:
    for pieces in ([b"a<<"], [b"a<", b"<"], [b"a", b"<", b"<"]):
        assembler = TextAssembler(("<", "a<<"))
        assert "".join(map(assembler.push, pieces)) + assembler.finish() == "a"
        assert assembler.stopped


def test_a_stop_string_that_began_before_an_opener_comes_first() -> None:
    for pieces in ([b"<b<"], [b"<b", b"<"], [b"<", b"b", b"<"]):
        assembler = TextAssembler(("<b<",), (("b", "</a>"),))
        assert "".join(map(assembler.push, pieces)) + assembler.finish() == ""
        assert assembler.stopped
    assembler = TextAssembler(("<b<",), (("b", "</a>"),))
    assert assembler.push(b"<b") == "" and assembler.push(b"x") == "<bx"


@given(
    st.text(st.sampled_from("ab<>c")),
    st.lists(st.text(st.sampled_from("abc<"), min_size=1, max_size=3), min_size=1, max_size=2),
    st.lists(
        st.tuples(
            st.sampled_from(["<a>", "<a>b", "b", ""]), st.sampled_from(["</a>", "c", "<", ""])
        ),
        max_size=3,
    ),
    st.data(),
)
def test_hidden_parts_are_the_same_however_the_bytes_are_cut(
    text: str, stops: list[str], hidden: list[tuple[str, str]], data: st.DataObject
) -> None:
    whole, cut_up = (TextAssembler(tuple(stops), tuple(hidden)) for _ in range(2))
    expected = whole.push(text.encode()) + whole.finish()
    streamed, tail = _feed(cut_up, data.draw(cut(text.encode())))
    assert streamed + tail == expected
    assert whole.stopped == cut_up.stopped
    assert cut_up.released == len(expected)
