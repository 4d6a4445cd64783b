"""What llguidance makes of a body fragment, on a vocabulary of single bytes."""

from __future__ import annotations

import random

import llguidance

END = 256


class _Bytes:
    eos_token_id = END
    bos_token_id = None
    tokens = [bytes([byte]) for byte in range(256)] + [b"<|end|>"]
    special_token_ids = [END]  # noqa: RUF012

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


TOKENIZER = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes()))


def matcher(body: str) -> llguidance.LLMatcher:
    made = llguidance.LLMatcher(TOKENIZER, f"start: body\n{body}", log_level=0)
    assert not made.is_error(), f"{made.get_error()}\n{body}"
    return made


def accepts(body: str, text: str) -> bool:
    return accepted_by(matcher(body), text)


def accepted_by(made: llguidance.LLMatcher, text: str) -> bool:
    """The matcher is as new after it."""
    data = list(text.encode())
    taken = made.try_consume_tokens(data)
    found = taken == len(data) and made.is_accepting()
    made.reset()
    return found


def walk(made: llguidance.LLMatcher, rng: random.Random, limit: int = 4000) -> str | None:
    """Allowed bytes of JSON at random until the text ends; None where it grew too long. The longer
    it is, the more it prefers bytes that close something."""
    said = bytearray()
    while not made.is_stopped():
        mask = made.compute_bitmask()
        assert not made.is_error(), made.get_error()
        allowed = [byte for byte in range(257) if mask[byte // 8] >> byte % 8 & 1]
        if rng.random() < min(0.95, 0.1 + len(said) / 400):
            allowed = _closing(allowed) or allowed
        byte = END if END in allowed and len(said) > 300 else rng.choice(allowed)
        if byte == END:
            break
        assert made.consume_token(byte), bytes(said)
        said.append(byte)
        if len(said) > limit:
            made.reset()
            return None
    made.reset()
    return said.decode()


def _closing(allowed: list[int]) -> list[int]:
    if len(allowed) > 60:  # inside a string
        return [byte for byte in allowed if byte == ord('"')]
    for marks in ([*b"]}"], [END, *b'",:0']):
        found = [byte for byte in allowed if byte in marks]
        if found:
            return found
    return []
