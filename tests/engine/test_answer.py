"""Which delta the score of a token comes with."""

from __future__ import annotations

from server.core.plan import TokenScore
from server.core.types import GenerateRequest
from server.engine.answer import Answer


class _Pieces:
    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def piece(self, token: int) -> bytes:
        return self._pieces[token]

    def spelling(self, token: int) -> bytes:
        return self._pieces[token] or b"<|end|>"


def _said(*pieces: bytes, stop: tuple[str, ...] = ()) -> list[tuple[str, list[str]]]:
    """The text of each delta with the tokens whose scores it carries, a token a step."""
    answer = Answer(GenerateRequest("r", (), stop=stop, logprobs=0))
    found = []
    for token in range(len(pieces)):
        answer.add(token, TokenScore(token, -1.0, ()), _Pieces(*pieces))
        last = token == len(pieces) - 1 or answer.stopped
        if last:
            answer.finish()
        delta = answer.delta(final=last)
        assert delta is not None
        found.append((delta.text, [score.chosen.text for score in delta.logprobs]))
        if last:
            break
    return found


def test_a_token_cut_by_a_stop_string_goes_with_what_is_seen_of_it() -> None:
    said = _said(b"a", b".\n", b"\n", b"never", stop=("\n\n",))
    assert said == [("a", ["a"]), (".", [".\n"]), ("", [])]


def test_a_token_held_back_comes_with_its_text() -> None:
    assert _said(b"a", b"\n", b"b", stop=("\n\n",)) == [
        ("a", ["a"]),
        ("", []),
        ("\nb", ["\n", "b"]),
    ]
    assert _said(b"a", b"\n", stop=("\n\n",)) == [("a", ["a"]), ("\n", ["\n"])]


def test_the_bytes_of_a_character_come_with_it() -> None:
    assert _said(b"\xc3", b"\xa9!") == [("", []), ("é!", ["\ufffd", "\ufffd!"])]


def test_tokens_without_text_come_with_the_next_or_at_the_end() -> None:
    assert _said(b"a", b"", b"b", b"") == [("a", ["a"]), ("", []), ("b", ["", "b"]), ("", [""])]
