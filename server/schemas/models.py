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
    return body


def models_body(models: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": models}
