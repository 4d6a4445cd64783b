"""Text to tokens and back. Everything here may be called from any thread."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from typing import Any

import llama_cpp

from server.core.types import TextPiece

from .grammar import Words

_UNKNOWN = 1
_CONTROL = 8
"""llama_token_attr bits; such tokens are matched in text only when specials are parsed."""
_USER_DEFINED = 16
"""Its spelling is always this token, also in plain text."""


class Vocabulary:
    def __init__(self, model: Any) -> None:
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self.size = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self.bos = int(llama_cpp.llama_vocab_bos(self._vocab))
        self.eos = int(llama_cpp.llama_vocab_eos(self._vocab))
        self.sep = int(llama_cpp.llama_vocab_sep(self._vocab))
        self.adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(self._vocab))
        self._pieces: dict[int, bytes] = {}
        self.special_tokens = self._spelled(_CONTROL | _UNKNOWN)
        """The spellings that the tokenizer turns into control tokens, longest first."""
        self.text_tokens = self._spelled(_USER_DEFINED)
        """The spellings that are always one token, and text."""
        self._control = re.compile("|".join(map(re.escape, self.special_tokens)) or r"(?!)")
        self.longest = max(
            len(llama_cpp.llama_vocab_get_text(self._vocab, t)) for t in range(self.size)
        )
        """No token stands for more characters than its spelling has bytes."""
        self.ends = frozenset(
            t for t in range(self.size) if llama_cpp.llama_vocab_is_eog(self._vocab, t)
        )

    def is_end(self, token: int) -> bool:
        return token in self.ends

    def words(self) -> Words:
        """Every token's bytes, for grammars. Takes up to a second."""
        control = set(self.special_tokens.values())
        return Words(
            [self._render(t, special=t in control) for t in range(self.size)],
            control,
            sorted(self.ends, key=lambda t: (t != self.eos, t)),
            self._tokenize_inside,
        )

    def fewest_tokens(self, prompt: Sequence[TextPiece]) -> int:
        """A lower bound without tokenising: control tokens, pieces, and the longest token's length.

        llama.cpp takes seconds for a megabyte of control tokens.
        """
        return sum(
            max(1, len(piece.text) // self.longest)
            if piece.plain
            else max(len(self._control.findall(piece.text)), len(piece.text) // self.longest)
            for piece in prompt
        )

    def tokenize(self, prompt: Sequence[TextPiece], *, begin: bool = True) -> list[int]:
        """Token ids of the pieces in a row; to `begin`, BOS first where the model wants one."""
        tokens = self.inside(prompt)
        if begin and self.adds_bos and self.bos >= 0 and tokens[:1] != [self.bos]:
            tokens.insert(0, self.bos)
        return tokens

    def inside(self, prompt: Sequence[TextPiece]) -> list[int]:
        """Token ids of the pieces and nothing around them."""
        tokens = []
        for piece in prompt:
            tokens += self._tokenize(_utf8(piece.text), special=not piece.plain)
        return tokens

    def _tokenize_inside(self, raw: bytes) -> list[int]:
        """Bytes that stand within a text, where some tokenizers would put a space first."""
        tokens = self._tokenize(raw, special=False)
        if b"".join(map(self.piece, tokens)) == raw:
            return tokens
        tokens = self._tokenize(b"\n" + raw, special=False)
        for first in range(1, len(tokens)):
            if b"".join(map(self.piece, tokens[first:])) == raw:
                return tokens[first:]
        return tokens

    def framed(self, text: Sequence[TextPiece]) -> list[int]:
        """Between the tokens the model wants around a text, such as [CLS] and [SEP]. Of several
        pieces all are read alike."""
        special = not all(piece.plain for piece in text)
        whole = "".join(piece.text for piece in text)
        return self._tokenize(_utf8(whole), special=special, framed=True)

    def framed_pair(self, first: str, second: str) -> list[int]:
        """Two plain texts as rerankers are trained to read them: `[CLS] a [SEP] b [SEP]`.

        Where a model ends texts with its own token, that comes first: `<s> a </s></s> b </s>`.
        """
        adds_end = llama_cpp.llama_vocab_get_add_eos(self._vocab) and self.eos >= 0
        adds_separator = llama_cpp.llama_vocab_get_add_sep(self._vocab) and self.sep >= 0
        start = [self.bos] if self.adds_bos and self.bos >= 0 else []
        end = [self.eos] if adds_end else []
        separator = [self.sep] if adds_separator else []
        before, after = (self._tokenize(_utf8(text), special=False) for text in (first, second))
        return [*start, *before, *end, *separator, *after, *(end or separator)]

    def pieces(self, text: str) -> list[TextPiece]:
        """A user's text for a prompt, the spellings of control tokens in it as plain pieces."""
        found: list[TextPiece] = []
        start = 0
        for match in self._control.finditer(text):
            found.append(TextPiece(text[start : match.start()]))
            found.append(TextPiece(match.group(), plain=True))
            start = match.end()
        return [*found, TextPiece(text[start:])]

    def _tokenize(self, raw: bytes, *, special: bool, framed: bool = False) -> list[int]:
        room = len(raw) + 8
        while True:
            buffer = (ctypes.c_int32 * room)()
            count = llama_cpp.llama_tokenize(
                self._vocab, raw, len(raw), buffer, room, framed, special
            )
            if count >= 0:
                return list(buffer[:count])
            room = -count

    def piece(self, token: int) -> bytes:
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = self._render(token, special=False)
        return found

    def spelling(self, token: int) -> str:
        """How a token is written in a template; empty for none."""
        return self.spelled(token).decode("utf-8", "replace") if token >= 0 else ""

    def spelled(self, token: int) -> bytes:
        return self._render(token, special=True)

    @property
    def fill_in_middle(self) -> tuple[str, str, str] | None:
        """What stands before a prefix, before a suffix and before the middle, where known."""
        before_prefix, before_suffix, before_middle = (
            self.spelling(int(find(self._vocab)))
            for find in (
                llama_cpp.llama_vocab_fim_pre,
                llama_cpp.llama_vocab_fim_suf,
                llama_cpp.llama_vocab_fim_mid,
            )
        )
        if before_prefix and before_suffix and before_middle:
            return before_prefix, before_suffix, before_middle
        return None

    def _spelled(self, attributes: int) -> dict[str, int]:
        found = {
            self.spelling(token): token
            for token in range(self.size)
            if llama_cpp.llama_vocab_get_attr(self._vocab, token) & attributes
        }
        found.pop("", None)
        return {spelling: found[spelling] for spelling in sorted(found, key=lambda s: (-len(s), s))}

    def _render(self, token: int, *, special: bool) -> bytes:
        if not 0 <= token < self.size:
            raise ValueError(f"token {token} is not in the vocabulary")
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
