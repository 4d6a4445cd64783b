"""A real conversation goes on after a restart and a swap, and says what it would have said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from .conftest import serving

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

STORY = "The old lighthouse keeper wrote down the weather every evening. " * 60


class Talk:
    """A conversation of one model, turn by turn."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.messages: list[dict[str, str]] = [{"role": "system", "content": STORY}]

    def say(self, url: str, text: str) -> tuple[int, int]:
        """Prompt tokens, and those reused."""
        self.messages.append({"role": "user", "content": text})
        body = {"model": self.model, "messages": self.messages, "temperature": 0, "max_tokens": 20}
        answer: dict[str, Any] = httpx2.post(
            f"{url}/v1/chat/completions", json=body, timeout=200
        ).json()
        message = answer["choices"][0]["message"]
        self.messages.append({"role": "assistant", "content": message["content"]})
        usage = answer["usage"]
        return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.parametrize("which", ["model_path", "qwen_path"])
def test_a_restart_changes_nothing_a_client_can_see(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Path = request.getfixturevalue(which)
    monkeypatch.setenv("INGLE_DISK_CACHE_MB", "500")
    monkeypatch.setenv("INGLE_CACHE_DIR", str(tmp_path / "prefixes"))
    flags = ("--slots", "2", "--ctx", "2048")
    talk, same = (Talk(path.name.removesuffix(".gguf")) for _ in range(2))
    with serving(path, *flags) as url:
        talk.say(url, "Who wrote down the weather?")
        same.messages = list(talk.messages)
        prompt, reused = same.say(url, "And when?")
        assert reused > 0.9 * prompt - 30
    with serving(path, *flags) as url:
        prompt, reused = talk.say(url, "And when?")
        assert reused > 0.9 * prompt - 30
        assert talk.messages == same.messages


def test_a_model_that_comes_back_into_memory_knows_its_conversation(
    model_path: Path, qwen_path: Path
) -> None:
    """With no place on disk: it is kept in memory."""
    flags = (str(qwen_path), "--memory-mb", "1300", "--slots", "2", "--ctx", "2048")
    small, large = (Talk(p.name.removesuffix(".gguf")) for p in (model_path, qwen_path))
    with serving(model_path, *flags) as url:
        for talk in (small, large):
            assert talk.say(url, "Who wrote down the weather?")[1] == 0
        for talk in (small, large):
            prompt, reused = talk.say(url, "And when?")
            assert reused > 0.9 * prompt - 30, talk.model
        metrics = httpx2.get(f"{url}/metrics").text
        loads = [line for line in metrics.splitlines() if "ingle_model_loads_total{" in line]
        assert sum(float(line.split()[-1]) for line in loads) >= 4
