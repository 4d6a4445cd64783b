"""What clients were promised and what they got: every request accepted ends exactly once.

The echo engine says what it was told, a byte a token, so every answer is known before: text that is
the beginning of it is a row of tokens without a gap, a repetition or another's word.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai

from tests.e2e.conftest import Server, until

WORDS = ("river", "stone", "garden", "window", "letter", "morning", "silver", "copper", "under")
PROBE = "still the same 🦊"
LEFT = "left"
_ENDS = ("stop", "length", "cancelled", "error")
_IDLE = ("requests_running", "requests_waiting", "slots_busy")
_TOKENS = ("prompt", "generated", "cached")
_LEAK = re.compile(r"Traceback|File \"|0x[0-9a-f]{6,}")


@dataclass
class Entry:
    """One request and all that its client heard: a text a choice, finish reasons, errors."""

    said: str
    prompt: str
    known: bool = True
    """Whether it is known before what it will say: a real model is free to."""
    choices: int = 1
    limit: int | None = None
    key: str = "none"
    heard: dict[int, str] = field(default_factory=dict)
    ends: list[str] = field(default_factory=list)
    error: str = ""
    status: int = 200
    usage: Any = None
    accepted: bool = False
    heard_at: list[float] = field(default_factory=list)
    """When something came, on the monotonic clock."""
    began_at: float = 0.0
    """When the first text came."""

    @property
    def text(self) -> str:
        return "".join(self.heard.values())

    @property
    def owed(self) -> str:
        """What a choice says when nothing stops it: a cut character at the end is none."""
        return self.said.encode()[: self.limit].decode("utf-8", "replace")

    @property
    def whole(self) -> bool:
        return self.usage is not None

    @property
    def outcome(self) -> str:
        if self.ends == [LEFT]:
            return LEFT
        if self.error:
            return "error" if self.accepted else "refused"
        return "length" if "length" in self.ends else "stop"

    @property
    def prompt_tokens(self) -> int:
        """Bytes, and three tokens for the turns' borders, or six with another turn before."""
        return len(self.prompt.encode())

    def check(self) -> None:
        """L1 to L3: one end, nothing lost, nothing twice, nobody else's."""
        for heard in self.heard.values() if self.known else ():
            assert self.owed.startswith(heard.removesuffix("�")), self
        if self.outcome == LEFT:
            return
        if self.error:
            assert self.ends == [] or len(self.ends) < self.choices, self
            assert not _LEAK.search(self.error), self
            return
        assert self.usage is not None and len(self.ends) == self.choices, self
        if not self.known:
            return
        assert list(self.heard.values()) == [self.owed] * self.choices, self
        cut = self.limit is not None and self.limit <= len(self.said.encode())
        assert self.ends == ["length" if cut else "stop"] * self.choices, self
        assert self.usage.completion_tokens == self.choices * min(
            self.limit or 1 << 30, len(self.said.encode())
        ), self


def rendered(text: str, system: str = "") -> str:
    """As long as the echo's own template makes it: a character for each control token."""
    before = f"|system\n{system}|" if system else ""
    return f"{before}|user\n{text}||assistant\n"


@dataclass
class Ledger:
    """The books of one server, from now on. `check` when all clients are done, and closed."""

    server: Server
    chance: random.Random
    known: bool = True
    entries: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.secret = f"secret{self.chance.getrandbits(64):x}"
        self.probe()
        self._before = self._books()
        self._engines = len(self.server.engines())
        self._files = self.server.open_files()

    def canary(self, words: int = 12) -> str:
        said = " ".join(self.chance.choices(WORDS, k=words))
        return f"{len(self.entries)} 🦊 {self.secret} {said}"

    def open(self, said: str, *, system: str = "", **more: Any) -> Entry:
        entry = Entry(said, rendered(said, system), self.known, **more)
        self.entries.append(entry)
        return entry

    async def ask(
        self,
        client: openai.AsyncOpenAI,
        words: int = 12,
        *,
        said: str = "",
        system: str = "",
        n: int = 1,
        max_tokens: int | None = None,
        stream: bool = True,
        leave_after: int | None = None,
        **more: Any,
    ) -> Entry:
        """One request; with `leave_after` its client goes once it has heard so many characters."""
        said = said or self.canary(words)
        entry = self.open(said, system=system, choices=n, limit=max_tokens, key=client.api_key)
        messages = [{"role": "user", "content": said}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        body = {"model": "echo", "messages": messages, "temperature": 0, "n": n, **more}
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        with _noted(entry):
            if stream:
                await self._stream(client, entry, body, leave_after)
            else:
                answer = await client.chat.completions.create(**body)
                entry.accepted = True
                for choice in answer.choices:
                    entry.heard[choice.index] = choice.message.content or ""
                    entry.ends.append(choice.finish_reason)
                entry.usage = answer.usage
        return entry

    async def _stream(
        self,
        client: openai.AsyncOpenAI,
        entry: Entry,
        body: dict[str, Any],
        leave_after: int | None,
    ) -> None:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        async with await client.chat.completions.create(**body, **options) as stream:
            entry.accepted = True
            async for chunk in stream:
                entry.usage = chunk.usage
                entry.heard_at.append(time.monotonic())
                for choice in chunk.choices:
                    if choice.delta.content and not entry.text:
                        entry.began_at = time.monotonic()
                    heard = entry.heard.get(choice.index, "")
                    entry.heard[choice.index] = heard + (choice.delta.content or "")
                    entry.ends += filter(None, [choice.finish_reason])
                if leave_after is not None and len(entry.text) >= leave_after and not entry.ends:
                    entry.ends = [LEFT]
                    return

    def check(self) -> None:
        for entry in self.entries:
            entry.check()
        self._check_rest()
        self._check_books()
        self._check_log()
        self.probe()

    def probe(self) -> None:
        """The golden text."""
        messages = [{"role": "user", "content": PROBE}]
        body = {"model": "echo", "messages": messages, "temperature": 0, "max_tokens": 24}
        headers = {"authorization": f"Bearer {self.server.key}"}
        url = f"{self.server.base}/v1/chat/completions"
        answer = httpx2.post(url, json=body, headers=headers, timeout=20)
        text = answer.json()["choices"][0]["message"]["content"]
        assert text == PROBE if self.known else text, answer.text

    def _check_rest(self) -> None:
        """L5: everything is as it was."""
        until(self.server.ready)
        until(lambda: not any(self.server.metric(f"ingle_{name}") for name in _IDLE))
        assert len(self.server.engines()) == self._engines
        assert self.server.process.poll() is None
        until(lambda: self.server.open_files() <= self._files)

    def _check_books(self) -> None:
        """L4: the server counts what its clients do. Of those who left it may know more."""
        books = self._books()
        books.subtract(self._before)
        outcomes = Counter(entry.outcome for entry in self.entries)
        left = [entry for entry in self.entries if entry.outcome == LEFT]
        whole = [entry for entry in self.entries if entry.whole]
        broken = [e for e in self.entries if not e.whole and e.outcome == "error"]
        errors = [entry for entry in self.entries if entry.error]
        assert books["error"] == outcomes["error"], (books, outcomes, errors)
        ended_anyway = books["stop"] + books["length"] - outcomes["stop"] - outcomes["length"]
        counted = ended_anyway + books["cancelled"]
        assert 0 <= ended_anyway <= counted <= len(left), (books, outcomes)
        assert counted >= sum(bool(entry.text) for entry in left), (books, outcomes)
        for name in _TOKENS:
            exact = sum(_used(entry, name) for entry in whole)
            unsure = [_bounds(entry, name) for entry in (*left, *broken)]
            least, most = (sum(side) for side in zip((0, 0), *unsure, strict=True))
            assert exact + least <= books[name] <= exact + most, (name, books, exact, least, most)

    def _check_log(self) -> None:
        """L6."""
        log = self.server.log()
        assert self.secret not in log
        assert self.secret not in self.server.metrics()

    def _books(self) -> Counter[str]:
        samples = dict(line.rsplit(" ", 1) for line in self.server.metrics().splitlines() if line)
        label = 'model_name="echo"'
        found = {
            end: samples.get(f'ingle_requests_finished_total{{{label},outcome="{end}"}}', 0)
            for end in _ENDS
        }
        found |= {name: samples[f"ingle_{name}_tokens_total{{{label}}}"] for name in _TOKENS}
        return Counter({name: int(float(value)) for name, value in found.items()})


def _used(entry: Entry, name: str) -> int:
    usage = entry.usage
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    assert usage.prompt_tokens == entry.prompt_tokens or not entry.known, entry
    return {
        "prompt": usage.prompt_tokens,
        "generated": usage.completion_tokens,
        "cached": cached,
    }[name]


def _bounds(entry: Entry, name: str) -> tuple[int, int]:
    """Of one whose usage nobody told."""
    if not entry.known:
        return 0, 1 << 30
    if name == "generated":
        most = entry.choices * min(entry.limit or 1 << 30, len(entry.said.encode()))
        return len(entry.text.encode()), most
    return (entry.prompt_tokens if entry.text and name == "prompt" else 0), entry.prompt_tokens


async def soon(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """`until`, while tasks go on."""
    await asyncio.to_thread(until, holds, seconds)


@contextmanager
def _noted(entry: Entry) -> Iterator[None]:
    try:
        yield
    except openai.APIError as error:
        entry.error = f"{error.code or type(error).__name__}: {error.message}"
        entry.status = getattr(error, "status_code", 200)
