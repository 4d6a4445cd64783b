"""What `ingle serve` prints when it is ready. Text in, text out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

from server.catalog import ResolvedModel
from server.core.types import ModelInfo, ModelKind
from server.settings import Settings

from .units import in_bytes

_FIRST: dict[ModelKind, tuple[str, dict[str, object]]] = {
    "generate": (
        "chat/completions",
        {"stream": True, "messages": [{"role": "user", "content": "Hello!"}]},
    ),
    "embed": ("embeddings", {"input": "Hello!"}),
    "rerank": ("rerank", {"query": "Who says hello?", "documents": ["Hello!", "Goodbye!"]}),
}
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def banner(
    settings: Settings,
    models: Sequence[ResolvedModel],
    loaded: Mapping[str, ModelInfo],
    free_bytes: int,
    *,
    tuned: Mapping[str, str] | None = None,
) -> str:
    """`loaded` are those in memory by name; `free_bytes` is the memory left now.

    `tuned` says by model name what a tuned profile changed.
    """
    blocks = [
        model_lines(model, loaded[model.name])
        if model.name in loaded
        else [f"{model.name} is loaded when it is asked for, {in_bytes(model.header.size)}"]
        for model in models
    ]
    for block, model in zip(blocks, models, strict=True):
        if tuned and model.name in tuned:
            block.append(f"  tuned     {tuned[model.name]}")
    resident = sum(info.resident_bytes for info in loaded.values())
    blocks.append(
        [
            f"  memory    {in_bytes(resident)} resident, {in_bytes(free_bytes)} free",
            f"  API       {base_url(settings)}/v1{_scope(settings)}",
            f"  metrics   {base_url(settings)}/metrics",
        ]
    )
    blocks.append(["Try it:", f"  {curl_line(settings, models[0].name, _kind(models[0], loaded))}"])
    blocks.append(["Ctrl+C stops the server."])
    return "\n".join(line for block in blocks for line in (*block, ""))


def model_lines(model: ResolvedModel, info: ModelInfo) -> list[str]:
    kind = info.description
    if info.quantisation not in kind:
        kind = f"{kind} {info.quantisation}"
    compute = f"{info.threads} thread{'s' if info.threads != 1 else ''}"
    if info.gpu:
        compute = f"{info.gpu}, {compute}"
    return [
        f"{model.name} is ready, loaded in {info.load_seconds:.1f} s",
        f"  model     {kind}, {in_bytes(model.header.size)}",
        f"  compute   {compute}",
        _room(info),
    ]


def _room(info: ModelInfo) -> str:
    if info.kind == "embed":
        return f"  vectors   {info.embedding_size} numbers, of texts up to {info.context} tokens"
    if info.kind == "rerank":
        return f"  ranks     documents, up to {info.context} tokens each with the query"
    return f"  slots     {info.slots} × {info.context} tokens, KV memory {in_bytes(info.kv_bytes)}"


def _kind(model: ResolvedModel, loaded: Mapping[str, ModelInfo]) -> ModelKind:
    info = loaded.get(model.name)
    return model.header.kind if info is None else info.kind


def base_url(settings: Settings) -> str:
    """An address that works from this machine."""
    host = settings.host
    if host in _EVERY_ADDRESS:
        host = _EVERY_ADDRESS[host]
    elif ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{settings.port}"


def curl_line(settings: Settings, name: str, kind: ModelKind = "generate") -> str:
    """A first request, ready to paste; the key is referred to, never shown."""
    path, more = _FIRST[kind]
    body = {"model": name, **more}
    data = shlex.quote(json.dumps(body, ensure_ascii=False))
    key = ' -H "Authorization: Bearer $INGLE_API_KEY"' if settings.has_keys else ""
    url = f"{base_url(settings)}/v1/{path}"
    return f"curl -N {url} -H 'Content-Type: application/json'{key} -d {data}"


def _scope(settings: Settings) -> str:
    everywhere = "on every address" if settings.host in _EVERY_ADDRESS else ""
    key = "with API key" if settings.has_keys else ""
    notes = ", ".join(note for note in (everywhere, key) if note)
    return f" ({notes})" if notes else ""
