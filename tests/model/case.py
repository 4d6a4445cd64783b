"""A server of a real model that has faults to come, or is treated badly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import httpx2
import openai
import psutil

SLOTS, CONTEXT = 4, 512
TOKENS = 40


class Case(NamedTuple):
    url: str
    model: str
    process: psutil.Process
    key: str = "none"
    """The key that `client` and the metrics are asked with, of a server that wants one."""

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
