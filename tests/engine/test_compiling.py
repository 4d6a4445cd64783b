"""Who waits for a grammar, for how long, and who does not."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from server.core.errors import IngleError, InvalidRequest, Overloaded
from server.core.protocol import Compiled
from server.core.types import GenerateRequest
from server.engine.compiling import AT_ONCE, PATIENCE, Compiling
from server.engine.sequence import Sequence

DEADLINE = 5


@dataclass
class Compiler:
    """`compile` says when it begins, and waits for the end of a grammar that is `held`."""

    held: dict[str, threading.Event] = field(default_factory=dict)
    began: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    done: queue.SimpleQueue[tuple[str, Compiled | IngleError]] = field(
        default_factory=queue.SimpleQueue
    )
    now: float = 0.0

    def compile(self, grammar: str) -> Compiled:
        self.began.put(grammar)
        if grammar in self.held:
            assert self.held[grammar].wait(DEADLINE)
        if grammar == "wrong":
            raise InvalidRequest("no grammar")
        return grammar.upper()

    def hold(self, grammar: str) -> Callable[[], None]:
        self.held[grammar] = threading.Event()
        return self.held[grammar].set

    def answers(self, count: int) -> list[tuple[str, Compiled | IngleError]]:
        return [self.done.get(timeout=DEADLINE) for _ in range(count)]


@pytest.fixture
def compiler() -> Compiler:
    return Compiler()


@pytest.fixture
def compiling(compiler: Compiler) -> Iterator[Compiling]:
    made = Compiling(
        compiler.compile,
        lambda sequence, outcome: compiler.done.put((sequence.id, outcome)),
        clock=lambda: compiler.now,
    )
    for _ in range(AT_ONCE):
        threading.Thread(target=made.work, daemon=True).start()
    yield made


def _asks(name: str, grammar: str) -> Sequence:
    return Sequence(GenerateRequest(name, (), grammar=grammar), [1], 0.0)


def test_a_grammar_is_compiled_once_for_all_who_wait_for_it(
    compiler: Compiler, compiling: Compiling
) -> None:
    free = compiler.hold("slow")
    for name in "abc":
        compiling.put(_asks(name, "slow"))
    assert compiler.began.get(timeout=DEADLINE) == "slow"
    compiling.put(_asks("d", "slow"))
    free()
    assert compiler.answers(4) == [(name, "SLOW") for name in "abcd"]
    assert compiler.began.empty()
    compiling.put(_asks("e", "wrong"))
    ((name, outcome),) = compiler.answers(1)
    assert name == "e" and isinstance(outcome, InvalidRequest)


def test_one_slow_grammar_does_not_hold_up_the_next(
    compiler: Compiler, compiling: Compiling
) -> None:
    free = compiler.hold("slow")
    compiling.put(_asks("a", "slow"))
    compiling.put(_asks("b", "quick"))
    assert compiler.answers(1) == [("b", "QUICK")]
    free()
    assert compiler.answers(1) == [("a", "SLOW")]


def test_who_was_dropped_is_never_done(compiler: Compiler, compiling: Compiling) -> None:
    frees = [compiler.hold(grammar) for grammar in ("one", "two")]
    for name, grammar in [("a", "one"), ("b", "one"), ("c", "two"), ("d", "unwanted"), ("e", "x")]:
        compiling.put(_asks(name, grammar))
    assert {compiler.began.get(timeout=DEADLINE) for _ in range(2)} == {"one", "two"}
    for name in "acd":
        compiling.drop(name)
    for free in frees:
        free()
    assert sorted(compiler.answers(2)) == [("b", "ONE"), ("e", "X")]
    assert compiler.began.get(timeout=DEADLINE) == "x", "what nobody waits for was compiled"
    assert compiler.done.empty()


def test_who_would_wait_too_long_is_told_to_come_back(
    compiler: Compiler, compiling: Compiling
) -> None:
    frees = [compiler.hold(grammar) for grammar in ("one", "two")]
    for name, grammar in [("a", "one"), ("b", "two"), ("early", "x")]:
        compiling.put(_asks(name, grammar))
    for _ in range(2):
        compiler.began.get(timeout=DEADLINE)
    compiler.now = PATIENCE
    compiling.put(_asks("late", "y"))
    compiler.now = PATIENCE * 1.5
    for free in frees:
        free()
    answers = dict(compiler.answers(4))
    assert (answers["a"], answers["b"], answers["late"]) == ("ONE", "TWO", "Y")
    assert isinstance(answers["early"], Overloaded)
    compiling.put(_asks("again", "x"))
    assert compiler.answers(1) == [("again", "X")]
