"""/v1/models on the wire."""

from __future__ import annotations

from typing import Any

from server.core.types import ModelInfo


def model_body(name: str, created: int, info: ModelInfo | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "ingle",
    }
    if info is not None:
        body["context_length"] = body["max_model_len"] = info.context
        body["capabilities"] = capabilities(info)
        body["meta"] = {
            "architecture": info.architecture,
            "quantisation": info.quantisation,
            "n_params": info.parameters,
            "n_ctx": info.context,
            "n_ctx_train": info.context_train,
            "n_vocab": info.vocabulary,
            "size": info.size,
            "slots": info.slots,
        }
        if info.embedding_size:
            body["meta"]["n_embd"] = info.embedding_size
    return body


def capabilities(info: ModelInfo) -> list[str]:
    """In the words of Ollama, and `chat` where there is a chat template."""
    if info.kind != "generate":
        return ["embedding" if info.kind == "embed" else "rerank"]
    found = ["completion"]
    if info.chat_template is not None:
        found.append("chat")
    if info.fill_in_middle is not None:
        found.append("insert")
    return found


def models_body(models: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": models}
