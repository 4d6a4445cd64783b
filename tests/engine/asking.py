"""A prompt as the echo engine wants it: it says again what the user said."""

from __future__ import annotations

from typing import Any

from server.core.types import GenerateRequest, SamplingParams, TextPiece


def ask(text: str, name: str = "r", *, plain: bool = True, **more: Any) -> GenerateRequest:
    """Greedy unless `more` says otherwise. Spellings of control tokens are text where `plain`."""
    prompt = (
        TextPiece("<|turn|>user\n"),
        TextPiece(text, plain=plain),
        TextPiece("<|end|><|turn|>assistant\n"),
    )
    return GenerateRequest(name, prompt, **{"sampling": SamplingParams(temperature=0), **more})
