"""Grammars by llguidance: compiled once, then followed token by token. No llama.cpp here."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer

from server.core.errors import InvalidRequest

from .grammar_check import Checker
from .grammar_limits import LIMITS, MAX_TEXT, first_line, invalid

T = TypeVar("T")

KEPT = 64
"""Compiled grammars; the least recently used go first."""


class GrammarBroken(RuntimeError):
    """The grammar cannot be followed any further; its sequence is lost, and nothing else."""

    @property
    def refusal(self) -> InvalidRequest:
        return invalid(f"it could not be followed to its end ({self})")


class Words:
    """A vocabulary as llguidance reads it. Control tokens match nothing but their ids.

    `tokens` are the bytes each id adds to the text (of control tokens their spelling), `ends` the
    ids that end an answer.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(
        self,
        tokens: Sequence[bytes],
        control: Iterable[int],
        ends: Sequence[int],
        tokenize: Callable[[bytes], list[int]],
    ) -> None:
        self.tokens = tokens
        self.special_token_ids = sorted({*control, *ends})
        # llguidance needs one; a vocabulary without any ends nowhere but by limits.
        self.ends = list(ends) or [len(tokens) - 1]
        self.eos_token_id = self.ends[0]
        self._tokenize = tokenize

    def __call__(self, text: str | bytes) -> list[int]:
        return self._tokenize(text if isinstance(text, bytes) else text.encode())


class Grammars:
    """The compiled grammars of one vocabulary. Safe to use from several threads."""

    def __init__(self, words: Words) -> None:
        self._size = len(words.tokens)
        self._tokenizer = LLTokenizer(words, eos_token=words.ends)  # type: ignore[arg-type]
        self._idle = [Checker(self._size)]
        self._compiled: OrderedDict[str, Grammar] = OrderedDict()
        self._lock = threading.Lock()

    def warm(self) -> None:
        for checker in self._idle:
            checker.start()

    def close(self) -> None:
        for checker in self._idle:
            checker.close()

    def compile(self, grammar: str) -> Grammar:
        """Blocks for milliseconds, at most 1.5 s. Raises InvalidRequest."""
        found = self.find(grammar)
        if found is None:
            found = Grammar(self._compile(grammar), self._size)
            self._keep(grammar, found)
        return found

    def find(self, grammar: str) -> Grammar | None:
        """What was compiled before."""
        with self._lock:
            found = self._compiled.get(grammar)
            if found is not None:
                self._compiled.move_to_end(grammar)
            return found

    def _keep(self, text: str, grammar: Grammar) -> None:
        with self._lock:
            self._compiled[text] = grammar
            while len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)

    @contextmanager
    def _checker(self) -> Iterator[Checker]:
        """One for each thread that compiles at the same time."""
        with self._lock:
            checker = self._idle.pop() if self._idle else Checker(self._size)
        try:
            yield checker
        finally:
            with self._lock:
                self._idle.append(checker)

    def _compile(self, grammar: str) -> LLMatcher:
        if len(grammar) > MAX_TEXT:
            raise invalid(f"it is longer than {MAX_TEXT} characters")
        with self._checker() as checker:
            checker.check(grammar)
        matcher = LLMatcher(
            self._tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0, limits=LIMITS
        )
        if not matcher.is_error():
            _try(matcher, self._size)
        if matcher.is_error():
            raise invalid(first_line(matcher.get_error()))
        return matcher


class Grammar:
    """A compiled grammar, from which any number of sequences may begin."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary

    def begin(self, ends: frozenset[int], stops: frozenset[int]) -> Constraint:
        """Microseconds. Tokens of `ends` and `stops` end the sequence where the grammar may end.

        Elsewhere those of `ends` are forbidden, those of `stops` what they spell.
        """
        return Constraint(self._matcher.deep_copy(), ends, stops, self._vocabulary)


class Constraint:
    """How far one sequence has come in its grammar. Raises GrammarBroken from any method."""

    def __init__(
        self, matcher: LLMatcher, ends: frozenset[int], stops: frozenset[int], vocabulary: int
    ) -> None:
        self.ended = False
        """The last token that was taken ended the sequence, and is no part of it."""
        self._matcher = matcher
        self._ends = ends
        self._stops = stops
        self._vocabulary = vocabulary

    @property
    def complete(self) -> bool:
        """Nothing may follow."""
        return self._checked(self._matcher.is_stopped())

    def take(self, token: int) -> bool:
        """Go on by `token` if it is allowed here."""
        if token in self._ends or token in self._stops:
            self.ended = self._checked(self._matcher.is_accepting())
            if self.ended or token in self._ends:
                return self.ended
        return self._checked(self._matcher.try_consume_tokens([token])) == 1

    def allowed(self) -> npt.NDArray[np.bool_]:
        """One flag a token of the vocabulary.

        Where the grammar may end, so may the sequence. Elsewhere end tokens are out, and tokens
        that a request named to end it are text like any other.
        """
        flags = self._checked(_allowed(self._matcher, self._vocabulary))
        accepting = self._matcher.is_accepting()
        flags[list(self._ends)] = accepting
        if accepting:
            flags[list(self._stops)] = True
        return flags

    def take_forced(self) -> list[int]:
        """Go on by the tokens to which there is no alternative, and return them."""
        forced = self._checked(self._matcher.compute_ff_tokens())
        taken = self._checked(self._matcher.try_consume_tokens(forced)) if forced else 0
        return forced[:taken]

    def _checked(self, result: T) -> T:
        if self._matcher.is_error():
            raise GrammarBroken(first_line(self._matcher.get_error()))
        return result


def _try(matcher: LLMatcher, vocabulary: int) -> None:
    """What is too large for one step is too large for all: the first one tells, or the first one
    that is a choice, such as that among the properties of an object."""
    _allowed(matcher, vocabulary)
    ahead = matcher.deep_copy()
    ahead.try_consume_tokens(ahead.compute_ff_tokens())
    if not ahead.is_error():
        _allowed(ahead, vocabulary)
    if ahead.is_error():
        raise invalid(first_line(ahead.get_error()))


def _allowed(matcher: LLMatcher, vocabulary: int) -> npt.NDArray[np.bool_]:
    bits = np.zeros((vocabulary + 31) // 32, np.uint32)
    matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
    return np.unpackbits(bits.view(np.uint8), count=vocabulary, bitorder="little").view(np.bool_)
