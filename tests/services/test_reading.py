"""One choice as it is read: which scores go with which text, and what counts as reasoning."""

from __future__ import annotations

from server.core.types import Finished, Scored, TokenDelta, TokenLogprob, Usage
from server.schemas.output import Content, Part
from server.services.reading import ChoiceReader, Said
from tests.fakes import FakeFormat, FakeParser


def _scored(text: str, offset: int) -> TokenLogprob:
    return TokenLogprob(Scored(0, text, text.encode(), -1.0), (), offset)


def _delta(*tokens: tuple[str, int], text: str | None = None) -> TokenDelta:
    released = "".join(token for token, _ in tokens) if text is None else text
    scores = tuple(_scored(token, offset) for token, offset in tokens)
    return TokenDelta("r", released, (0,) * len(tokens), scores)


def _reader() -> ChoiceReader:
    return ChoiceReader(0, FakeParser(FakeFormat()), legacy=False)


def _scores(said: list[Said]) -> list[list[str]]:
    return [[score.chosen.text for score in one.scores] for one in said]


def test_scores_of_tags_reasoning_and_calls_are_nobodys() -> None:
    reader = _reader()
    said = []
    for i, character in enumerate("‹hm›Hi«f:{}»"):
        said += reader.push(_delta((character, i)))
    assert [
        (one.part.text, _scores([one])[0]) for one in said if isinstance(one.part, Content)
    ] == [
        ("H", ["H"]),
        ("i", ["i"]),
    ]
    assert all(not one.scores for one in said if not isinstance(one.part, Content))


def test_a_token_across_the_border_goes_with_its_first_visible_character() -> None:
    reader = _reader()
    said = reader.push(_delta(("‹h", 0), ("m›Hi", 2), (" you«", 6), ("f:", 11)))
    content = [one for one in said if isinstance(one.part, Content)]
    assert "".join(one.part.text for one in content if isinstance(one.part, Content)) == "Hi you"
    assert [text for one in _scores(content) for text in one] == ["m›Hi", " you«"]


class _Holding:
    """Keeps what it hears until the end."""

    complete_calls = 0

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> list[Part]:
        self._held += text
        return []

    def finish(self, reason: str) -> list[Part]:
        del reason
        return [Content(self._held[:3], 0), Content("", 3), Content(self._held[3:], 3)]


def test_text_held_back_takes_its_scores_along_each_once() -> None:
    reader = ChoiceReader(0, _Holding(), legacy=False)
    assert reader.push(_delta(("ab", 0))) == []
    assert reader.push(_delta(("c", 2), ("de", 3))) == []
    said, ended = reader.finish(Finished("r", "stop", Usage(1, 0, 3), 0.0))
    assert _scores(said) == [["ab", "c"], ["de"]]
    assert ended.reason == "stop"


def test_parts_of_one_character_all_go_with_it() -> None:
    reader = _reader()
    halves = [TokenLogprob(Scored(0, "\ufffd", b, -1.0), (), 1) for b in (b"\xc3", b"\xa9")]
    said = reader.push(_delta(("x", 0)))
    assert reader.push(TokenDelta("r", "", (0,))) == []
    said += reader.push(TokenDelta("r", "é", (0,), tuple(halves)))
    assert [[s.chosen.data for s in one.scores] for one in said] == [[b"x"], [b"\xc3", b"\xa9"]]


def test_reasoning_tokens_are_those_before_the_block_ends() -> None:
    reader = _reader()
    for i, character in enumerate("‹hmm›Hi"):
        reader.push(_delta((character, i)))
    _, ended = reader.finish(Finished("r", "stop", Usage(1, 0, 7), 0.0))
    assert ended.reasoning_tokens == 4, "three of text and the one that ends the block"


def test_reasoning_is_never_more_than_was_generated() -> None:
    reader = _reader()
    reader.push(_delta(("‹hm", 0), ("m", 3)))
    _, ended = reader.finish(Finished("r", "length", Usage(1, 0, 1), 0.0))
    assert ended.reasoning_tokens == 1
