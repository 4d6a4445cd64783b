"""What clients were promised and what they got: every request accepted ends exactly once."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import httpx2
import openai

from tests.e2e.conftest import Server

WORDS = ("river", "stone", "garden", "window", "letter", "morning", "silver", "copper", "under")


@dataclass
class Entry:
    """One request and all that its client heard. `ends` are its finish reasons and errors."""

    said: str
    heard: str = ""
    ends: list[str] = field(default_factory=list)


@dataclass
class Ledger:
    """The echo engine says what it was told, so every answer is known before."""

    server: Server
    chance: random.Random
    entries: list[Entry] = field(default_factory=list)

    async def ask(self, client: openai.AsyncOpenAI, words: int = 12) -> Entry:
        canary = f"{len(self.entries)} 🦊 " + " ".join(self.chance.choices(WORDS, k=words))
        entry = Entry(canary)
        self.entries.append(entry)
        try:
            stream = await client.chat.completions.create(
                model="echo",
                messages=[{"role": "user", "content": canary}],
                temperature=0,
                stream=True,
            )
            async for chunk in stream:
                entry.heard += chunk.choices[0].delta.content or ""
                entry.ends += filter(None, [chunk.choices[0].finish_reason])
        except openai.APIError as error:
            entry.ends.append(str(error.code or type(error).__name__))
        return entry

    def check(self) -> None:
        """Nothing lost, nothing twice, nobody else's; and the server's books say the same."""
        for entry in self.entries:
            assert (entry.heard, entry.ends) == (entry.said, ["stop"]), entry
        text = httpx2.get(f"{self.server.base}/metrics").text
        samples = {line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in text.splitlines()}
        finished = 'ingle_requests_finished_total{model_name="echo",outcome="stop"}'
        assert float(samples[finished]) == len(self.entries)
        for gauge in ("running", "waiting"):
            assert float(samples[f'ingle_requests_{gauge}{{model_name="echo"}}']) == 0
