"""`python -m server.llama.grammar_check TOKENS`: compiles grammars in a process that may be killed.

It answers what is wrong with a grammar, nothing where it is right. llguidance bounds its work but
for a few operations on regular expressions, and a thread inside it cannot be stopped.
"""

from __future__ import annotations

import sys

from llguidance import LLMatcher, LLTokenizer

from server.core.child import Child, answer_questions

from .grammar_limits import LIMITS, first_line, invalid

SECONDS = 1.2
"""What one grammar may take; an ordinary one takes one to fifty milliseconds."""
MEMORY = 2 << 30


class Checker:
    """The other end of the process. One thread at a time."""

    def __init__(self, vocabulary: int) -> None:
        self._child = Child(__spec__.name, str(vocabulary))

    def start(self) -> None:
        """Does not wait until it is up."""
        self._child.start()

    def check(self, grammar: str) -> None:
        """Raises InvalidRequest for a grammar that is wrong or takes too long, or EngineError."""
        answer = self._child.ask(grammar.encode("utf-8", "replace"), SECONDS)
        if answer is None:
            raise invalid("it takes too much time or memory to compile")
        if answer:
            raise invalid(answer.decode())

    def close(self) -> None:
        self._child.close()


class _Bytes:
    """The smallest vocabulary in which every text and every token id can be named."""

    eos_token_id = 256
    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids = (256,)

    def __init__(self, vocabulary: int) -> None:
        known = [bytes([byte]) for byte in range(256)] + [b"<end>"]
        self.tokens = known + [b""] * (vocabulary - len(known))

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


def main() -> None:
    tokenizer = LLTokenizer(_Bytes(int(sys.argv[1])))  # type: ignore[arg-type]

    def wrong(grammar: bytes) -> bytes:
        matcher = LLMatcher(
            tokenizer, LLMatcher.grammar_from_lark(grammar.decode()), log_level=0, limits=LIMITS
        )
        return first_line(matcher.get_error()).encode() if matcher.is_error() else b""

    answer_questions(wrong, memory=MEMORY, seconds=SECONDS)


if __name__ == "__main__":
    main()
