"""Streamed chat answers, read as strictly as the strictest client reads them."""

from __future__ import annotations

import json
from typing import Any

from openai.types.chat import ChatCompletionChunk

Chunk = dict[str, Any]
REASONS = {"stop", "length", "tool_calls", "function_call"}


def chunks_of(stream: str, *, choices: int = 1, include_usage: bool = False) -> list[Chunk]:
    """The chunks of a stream that keeps every rule."""
    *frames, done, end = stream.split("\n\n")
    assert (done, end) == ("data: [DONE]", "") and stream.isascii()
    assert all(frame.startswith("data: {") and "\n" not in frame for frame in frames)
    for frame in frames:
        ChatCompletionChunk.model_validate_json(frame[6:], strict=True)
    chunks: list[Chunk] = [json.loads(frame[6:]) for frame in frames]
    same = ("id", "object", "created", "model", "system_fingerprint")
    assert len({tuple(chunk[key] for key in same) for chunk in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    if include_usage:
        _check_usage(chunks)
        chunks = chunks[:-1]
    else:
        assert all("usage" not in chunk for chunk in chunks)
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    heads = [chunk["choices"][0] for chunk in chunks[:choices]]
    assert [head["index"] for head in heads] == list(range(choices))
    for index in range(choices):
        _check_choice([c for chunk in chunks for c in chunk["choices"] if c["index"] == index])
    return chunks


def _check_usage(chunks: list[Chunk]) -> None:
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"]


def _check_choice(choices: list[Chunk]) -> None:
    first, *parts, last = choices
    assert first["delta"] in (
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None},
    )
    assert last["delta"] == {} and last["finish_reason"] in REASONS
    assert all(choice["finish_reason"] is None for choice in choices[:-1])
    assert all(choice["logprobs"] is None for choice in (first, last))
    spoken, started = False, 0
    for part in parts:
        ((key, value),) = part["delta"].items()
        assert value not in ("", None, [])
        assert key == "content" or part["logprobs"] is None
        assert key != "reasoning_content" or not spoken, "reasoning after the answer began"
        spoken = spoken or key != "reasoning_content"
        if key == "tool_calls":
            started = _check_call(value, started)
        elif key == "function_call":
            assert set(value) == ({"arguments"} if started else {"name", "arguments"})
            started = 1


def _check_call(value: list[Chunk], started: int) -> int:
    (call,) = value
    if call["index"] == started:
        assert set(call) == {"index", "id", "type", "function"}
        assert call["type"] == "function" and call["id"] and call["function"]["name"]
        assert call["function"]["arguments"] == ""
        return started + 1
    assert call["index"] == started - 1, "calls are interleaved"
    assert set(call) == {"index", "function"} and set(call["function"]) == {"arguments"}
    assert call["function"]["arguments"]
    return started


def joined(chunks: list[Chunk], index: int = 0) -> dict[str, Any]:
    """The whole message that the deltas of a choice add up to, and its logprobs and reason."""
    message: dict[str, Any] = {"content": None}
    calls: list[Chunk] = []
    scores: list[Chunk] = []
    reason = None
    for choice in (chunk["choices"][0] for chunk in chunks):
        if choice["index"] != index:
            continue
        delta = choice["delta"]
        for key in ("content", "reasoning_content"):
            if delta.get(key) is not None:
                message[key] = (message.get(key) or "") + delta[key]
        for call in delta.get("tool_calls", []):
            if "id" in call:
                calls.append({**call, "function": dict(call["function"])})
            else:
                calls[-1]["function"]["arguments"] += call["function"]["arguments"]
        scores += (choice["logprobs"] or {}).get("content", [])
        reason = choice["finish_reason"] or reason
    if calls:
        message["tool_calls"] = [
            {key: value for key, value in call.items() if key != "index"} for call in calls
        ]
    return {"message": message, "scores": scores, "reason": reason}


def completions_of(stream: str, *, include_usage: bool = False) -> dict[int, Chunk]:
    """The choices of a stream of /v1/completions that keeps every rule, by index."""
    *frames, done, end = stream.split("\n\n")
    assert (done, end) == ("data: [DONE]", "") and stream.isascii()
    assert all(frame.startswith("data: {") and "\n" not in frame for frame in frames)
    chunks: list[Chunk] = [json.loads(frame[6:]) for frame in frames]
    same = ("id", "object", "created", "model", "system_fingerprint")
    assert len({tuple(chunk[key] for key in same) for chunk in chunks}) == 1
    assert chunks[0]["object"] == "text_completion"
    if include_usage:
        _check_usage(chunks)
    else:
        assert all("usage" not in chunk for chunk in chunks)
    choices: dict[int, Chunk] = {}
    for part in (part for chunk in chunks for part in chunk["choices"]):
        choice = choices.setdefault(part["index"], {"text": "", "finish_reason": None})
        assert choice["finish_reason"] is None, "a choice that ended goes on"
        choice["text"] += part["text"]
        choice["finish_reason"] = part["finish_reason"]
    assert sorted(choices) == list(range(len(choices)))
    assert all(choice["finish_reason"] in ("stop", "length") for choice in choices.values())
    return choices
