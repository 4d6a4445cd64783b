"""A server of a real model that has faults to come, or is treated badly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import openai
import psutil

from . import scoring

SLOTS, CONTEXT = 4, 512
TOKENS = 40
ROUNDING = 1.0
"""Between logarithms of probabilities. Of batches of other shapes 0.4 was seen at most, and 5.7 at
least of a word that is lost or told twice."""


class Case(NamedTuple):
    url: str
    path: Path
    """Of the model's file."""
    process: psutil.Process
    key: str = "none"
    """The key that `client` and the metrics are asked with, of a server that wants one."""

    @property
    def model(self) -> str:
        return self.path.name.removesuffix(".gguf")

    @property
    def engine(self) -> psutil.Process:
        return next(p for p in self.process.children() if "server.engine.worker" in p.cmdline())

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=100
        )

    def say(self, client: openai.OpenAI, question: str, **more: Any) -> str:
        """What is streamed, to its end."""
        stream = client.chat.completions.create(**self.body(question, **more), stream=True)
        return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)

    def body(self, question: str, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": question}]
        fixed = {"model": self.model, "temperature": 0, "max_tokens": TOKENS}
        return {**fixed, "messages": messages, **more}

    def is_greedy(self, question: str, text: str) -> bool:
        """Whether each token of the text is the likeliest in its place, as it is at temperature 0,
        or nearly so: a batch of another shape rounds otherwise. A word that is lost or told twice
        is none of those, and neither is a stranger's."""
        headers = {"authorization": f"Bearer {self.key}"}
        body = self.body(question)
        told = httpx2.post(f"{self.url}/apply-template", json=body, headers=headers).json()
        prompt, whole = (
            scoring.tokens(self.path, said) for said in (told["prompt"], told["prompt"] + text)
        )
        rows = scoring.distributions(self.path, whole)[len(prompt) - 1 : -1]
        likeliest = zip(rows, whole[len(prompt) :], strict=True)
        return all(row.max() - row[token] < ROUNDING for row, token in likeliest)

    def metric(self, name: str) -> float:
        lines = self.scraped().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))

    def outcome(self, name: str) -> float:
        lines = self.scraped().splitlines()
        return sum(float(line.split()[-1]) for line in lines if f'outcome="{name}"' in line)

    def scraped(self) -> str:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx2.get(f"{self.url}/metrics", headers=headers).raise_for_status().text

    def ready(self) -> bool:
        return httpx2.get(f"{self.url}/readyz").status_code == 200


Serve = Callable[..., Case]
"""Of faults and settings, by their names."""
