"""The workloads, as plain data: the same for the same seed.

What a cache must not help is unique from its first words on; what it must help is identical.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from .prose import TokenScale, adjectives, facts, nouns, prose

SYSTEM_TOKENS = 750
INTRUDER_TOKENS = 1450
INTRUDERS = 3
INTRUDE_AFTER = 8
INTRUDER_ANSWER = 32
TURNS = 4
TURN_TOKENS = 60
COPIED_SENTENCES = 8

ITEM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "colour": {"type": "string", "enum": ["red", "green", "blue", "black", "white"]},
        "price": {"type": "integer", "minimum": 0, "maximum": 10_000},
        "in_stock": {"type": "boolean"},
    },
    "required": ["name", "colour", "price", "in_stock"],
    "additionalProperties": False,
}
ITEMS: dict[str, Any] = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": ITEM, "minItems": 100}},
    "required": ["items"],
    "additionalProperties": False,
}
"""More than any limit here lets through, so that answers are as long as a story."""
TOP_LOGPROBS = 5


@dataclass(frozen=True, slots=True)
class Session:
    """User turns of one conversation; the server's answers go between them."""

    turns: tuple[str, ...]
    max_tokens: int
    system: str | None = None
    schema: dict[str, Any] | None = None
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """`clients` clients take sessions until none is left.

    The intruders arrive together once every client has read `intrude_after` chunks.
    """

    case: str
    clients: int
    sessions: tuple[Session, ...]
    intruders: tuple[Session, ...] = ()
    intrude_after: int = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    clients: int
    requests: int
    max_tokens: int


Sessions = Callable[[Random, TokenScale, Sizes], tuple[Session, ...]]


@dataclass(frozen=True, slots=True)
class Case:
    """`requests` counts sessions a client, and never fewer than `at_least` in all."""

    about: str
    sessions: Sessions
    clients: tuple[int, ...]
    max_tokens: int
    requests: int = 1
    at_least: int = 1


def build(
    name: str,
    scale: TokenScale,
    *,
    clients: int,
    requests: int | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
) -> Workload:
    case = CASES[name]
    total = requests or max(case.requests * clients, case.at_least)
    sizes = Sizes(clients, total, max_tokens or case.max_tokens)
    rng = Random(f"{name} {seed} {clients}")
    sessions = case.sessions(rng, scale, sizes)
    if name != "intrusion":
        return Workload(name, clients, sessions)
    intruders = tuple(_intruder(rng, scale) for _ in range(INTRUDERS))
    return Workload(name, clients, sessions, intruders, INTRUDE_AFTER)


def _chat(rng: Random, scale: TokenScale, sizes: Sizes) -> tuple[Session, ...]:
    del scale
    return tuple(Session((_story(rng),), sizes.max_tokens) for _ in range(sizes.requests))


def _shared_prefix(rng: Random, scale: TokenScale, sizes: Sizes) -> tuple[Session, ...]:
    system = prose(rng, scale.words(SYSTEM_TOKENS))
    return tuple(
        Session((_story(rng),), sizes.max_tokens, system=system) for _ in range(sizes.requests)
    )


def _multi_turn(rng: Random, scale: TokenScale, sizes: Sizes) -> tuple[Session, ...]:
    words = scale.words(TURN_TOKENS)
    return tuple(
        Session(
            tuple(f"{prose(rng, words)} What happens next?" for _ in range(TURNS)),
            sizes.max_tokens,
        )
        for _ in range(sizes.requests)
    )


def _copy(rng: Random, scale: TokenScale, sizes: Sizes) -> tuple[Session, ...]:
    del scale
    return tuple(
        Session((_copied(rng, fix=bool(i % 2)),), sizes.max_tokens) for i in range(sizes.requests)
    )


def _json_schema(rng: Random, scale: TokenScale, sizes: Sizes) -> tuple[Session, ...]:
    del scale
    return tuple(
        Session((_item(rng),), sizes.max_tokens, schema=ITEM) for _ in range(sizes.requests)
    )


def _json_list(rng: Random, scale: TokenScale, sizes: Sizes) -> tuple[Session, ...]:
    del scale
    return tuple(
        Session((_item(rng),), sizes.max_tokens, schema=ITEMS) for _ in range(sizes.requests)
    )


def _logprobs(rng: Random, scale: TokenScale, sizes: Sizes) -> tuple[Session, ...]:
    chats = _chat(rng, scale, sizes)
    return tuple(replace(chat, top_logprobs=TOP_LOGPROBS) for chat in chats)


def _story(rng: Random) -> str:
    """Asks for more than any limit here lets through."""
    return (
        f"{_mark(rng)} Write a very long and detailed story about a {rng.choice(adjectives)} "
        f"{rng.choice(nouns)} and a {rng.choice(adjectives)} {rng.choice(nouns)}."
    )


def _copied(rng: Random, *, fix: bool) -> str:
    text = " ".join(rng.sample(facts, COPIED_SENTENCES))
    task = "Repeat this text exactly, word for word."
    if fix:
        text = text.replace(" the ", " teh ", 1)
        task = "Write this text again with the one misspelled word put right."
    return f"Text {rng.randrange(10**6)}:\n\n{text}\n\n{task}"


def _item(rng: Random) -> str:
    thing = f"{rng.choice(adjectives)} {rng.choice(nouns)}"
    return (
        f"{_mark(rng)} Describe a {thing} that is for sale, as a JSON object "
        "with name, colour, price and in_stock."
    )


def _intruder(rng: Random, scale: TokenScale) -> Session:
    task = "Summarise this text in one sentence."
    words = scale.prompt_words(INTRUDER_TOKENS) - len(task.split())
    return Session((f"{prose(rng, max(1, words))} {task}",), INTRUDER_ANSWER)


def _mark(rng: Random) -> str:
    """Makes a prompt differ from every other from its start."""
    return f"{rng.choice(nouns).title()} {rng.randrange(10**6)}."


CASES = {
    "chat": Case("short chats", _chat, (1, 2, 4, 8), 64, requests=4, at_least=8),
    "shared-prefix": Case(
        f"one {SYSTEM_TOKENS}-token system prompt, cold", _shared_prefix, (8,), 64
    ),
    "multi-turn": Case(f"conversations of {TURNS} turns", _multi_turn, (12,), 32),
    "intrusion": Case(
        f"running streams, then {INTRUDERS} prompts of {INTRUDER_TOKENS} tokens", _chat, (4,), 160
    ),
    "copy": Case("answers that repeat the prompt", _copy, (4,), 192, requests=2, at_least=4),
    "json-schema": Case("answers in a JSON Schema", _json_schema, (8,), 96, requests=2),
    "json-list": Case("a JSON Schema that is never done", _json_list, (8,), 64, requests=4),
    "logprobs": Case(f"short chats, {TOP_LOGPROBS} top_logprobs", _logprobs, (8,), 64, requests=4),
}
