"""A vocabulary of bytes and control tokens, and what a grammar lets a model say with it."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper


class Bytes:
    """Every byte is a token; control tokens follow, the end token last."""

    def __init__(self, special_tokens: Mapping[str, int]) -> None:
        spellings = sorted(special_tokens, key=special_tokens.__getitem__)
        assert [special_tokens[s] for s in spellings] == list(range(256, 256 + len(spellings)))
        self.special_tokens = dict(special_tokens)
        self.tokens = [bytes([i]) for i in range(256)]
        self.tokens += [b"\xff" + s.encode() for s in [*spellings, "<end-of-all>"]]
        self.special_token_ids = list(range(256, len(self.tokens)))
        self.eos_token_id = len(self.tokens) - 1
        self.bos_token_id = None
        self.tokenizer = LLTokenizer(TokenizerWrapper(self))
        longest = sorted(special_tokens, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest))})" if longest else "(?!)")

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = []
        for part in self._split.split(text):
            special = self.special_tokens.get(part or "")
            tokens += [special] if special is not None else list((part or "").encode())
        return tokens

    def decode(self, tokens: list[int]) -> str:
        return b"".join(self.tokens[t].removeprefix(b"\xff") for t in tokens).decode()

    def matcher(self, grammar: str) -> LLMatcher:
        matcher = LLMatcher(self.tokenizer, grammar, log_level=0)
        assert not matcher.is_error(), f"{matcher.get_error()}\n{grammar}"
        return matcher

    def accepts(self, grammar: str, text: str) -> bool:
        """Whether a model may say exactly this and end."""
        matcher = self.matcher(grammar)
        return self._takes(matcher, text) and bool(matcher.is_accepting())

    def allows(self, grammar: str, text: str) -> bool:
        """Whether a model may begin like this."""
        return self._takes(self.matcher(grammar), text)

    def _takes(self, matcher: LLMatcher, text: str) -> bool:
        for token in self.encode(text):
            if not matcher.validate_tokens([token]):
                return False
            assert matcher.consume_token(token), matcher.get_error()
        return True

    def walk(self, grammar: str, rng: random.Random, closer: str = "") -> str | None:
        """A random answer; None where it had to be cut. `closer` is said where it can be, often."""
        matcher = self.matcher(grammar)
        said: list[int] = []
        ending = self.encode(closer)
        while not matcher.is_stopped() and len(said) < _LONGEST:
            if ending and rng.random() < 0.2 and matcher.validate_tokens(ending) == len(ending):
                said += ending
                assert matcher.consume_tokens(ending), matcher.get_error()
                continue
            allowed = _set_bits(matcher.compute_bitmask(), len(self.tokens))
            token = _choose(allowed, self.eos_token_id, matcher, rng)
            if token == self.eos_token_id:
                break
            said.append(token)
            assert matcher.consume_token(token), matcher.get_error()
        return self.decode(said) if matcher.is_accepting() or matcher.is_stopped() else None


_LONGEST = 2000
_LIKELY = frozenset(b"}\"')>]\n ae")


def _choose(allowed: list[int], end: int, matcher: LLMatcher, rng: random.Random) -> int:
    """Ends and closing signs more often than chance, so that walks come to an end."""
    if end in allowed and matcher.is_accepting() and rng.random() < 0.5:
        return end
    special = [t for t in allowed if 256 <= t < end]
    if special and rng.random() < 0.3:
        return rng.choice(special)
    forced = matcher.compute_ff_bytes()
    if forced and forced[0] in allowed:
        return int(forced[0])
    likely = [t for t in allowed if t in _LIKELY]
    plain = [t for t in allowed if 32 <= t < 127 or t in (10, end)] or allowed
    return rng.choice(likely if likely and rng.random() < 0.5 else plain)


def _set_bits(mask: bytes, size: int) -> list[int]:
    return [i for i in range(size) if mask[i // 8] >> (i % 8) & 1]
