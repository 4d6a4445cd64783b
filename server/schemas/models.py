"""/v1/models on the wire. Every entry serves the clients of OpenAI and of Anthropic."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from server.core.config import ModelFacts
from server.core.stats import ResidentState
from server.core.types import ModelInfo


def model_body(
    name: str,
    root: str,
    created: int,
    info: ModelInfo | None,
    aliases: Iterable[str],
    facts: ModelFacts,
    state: ResidentState,
) -> dict[str, Any]:
    """`name` may be an alias of the model `root`. `state` is told as llama-server's router does.

    Until it is first loaded there is no `info`, and `facts` tell what its file says.
    """
    body: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "ingle",
        "root": root,
        "status": {"value": state},
    }
    if info is None:
        body["capabilities"] = _expected(facts)
        body["meta"] = {
            "architecture": facts.architecture,
            "quantisation": facts.quantisation,
            "n_params": facts.parameters,
            "n_ctx_train": facts.context_train,
            "size": facts.size,
            "aliases": list(aliases),
        }
    else:
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
            "aliases": list(aliases),
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


def _expected(facts: ModelFacts) -> list[str]:
    if facts.kind != "generate":
        return ["embedding" if facts.kind == "embed" else "rerank"]
    return ["completion", "chat"] if facts.chats else ["completion"]


def anthropic_model(body: dict[str, Any]) -> dict[str, Any]:
    created = datetime.fromtimestamp(body["created"], UTC)
    return body | {
        "type": "model",
        "display_name": body["id"],
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def models_body(models: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": models}


def anthropic_models(models: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **models_body([anthropic_model(model) for model in models]),
        "has_more": False,
        "first_id": models[0]["id"],
        "last_id": models[-1]["id"],
    }
