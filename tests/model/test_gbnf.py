"""llama.cpp's own example grammars."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.services.grammars import gbnf_body
from tests.grammars.acceptance import accepts

pytestmark = pytest.mark.model

TEXTS = {
    "arithmetic": "a1+(b*3)=2\n",
    "c": "int main(int argc){int a = 1;return f(a);}",
    "chess": "1. e4 e5\n2. Nf3 Nc6\n",
    "english": "The quick brown fox",
    "japanese": "ねこ",
    "json": '{"a": [1, {"b": "é"}]}',
    "json_arr": '[\n"a",\n1]',
    "list": "- one\n- two\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_example(name: str, vocabulary_path: Path) -> None:
    grammars = vocabulary_path.parents[1] / "grammars"
    assert {path.stem for path in grammars.glob("*.gbnf")} == set(TEXTS)
    body = gbnf_body((grammars / f"{name}.gbnf").read_text(), param="grammar")
    assert accepts(body, TEXTS[name])
    assert not accepts(body, TEXTS[name] + "\x07")
