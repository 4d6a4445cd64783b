"""/admin on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import structs
from pydantic import Field

from server.core.config import ModelFacts
from server.core.stats import ModelStatus, ReplicaStatus
from server.core.types import ModelInfo

from .common import RequestBody
from .keeping import KeepFields


class ModelRequest(RequestBody):
    model: Annotated[str, Field(min_length=1, max_length=1024)]
    """A model's name, or an alias of it."""


class LoadRequest(ModelRequest, KeepFields):
    pass


class PullRequest(RequestBody):
    model: Annotated[str, Field(min_length=1, max_length=1024)]
    """A name of the catalogue, `hf:ORG/REPO[:QUANT]`, or `https://HOST/FILE.gguf[#sha256=…]`."""


def status_body(
    status: ModelStatus, facts: ModelFacts, info: ModelInfo | None, aliases: Iterable[str]
) -> dict[str, Any]:
    return {
        "id": status.name,
        "aliases": list(aliases),
        "kind": facts.kind if info is None else info.kind,
        "status": status.state,
        "error": status.error,
        "bytes": status.bytes,
        "measured": status.measured,
        "pinned": status.pinned,
        "replicas": [_replica(replica) for replica in status.replicas],
        "requests": status.requests,
        "waiting": status.waiting,
        "keep_alive_seconds": status.keep,
        "unloads_in_seconds": _rounded(status.unloads_in),
        "idle_seconds": _rounded(status.idle),
        "context": info.context if info else None,
        "slots": info.slots if info else None,
        "quantization": info.quantisation if info else facts.quantisation,
        "load_seconds": _rounded(status.load_seconds),
    }


def _replica(replica: ReplicaStatus) -> dict[str, Any]:
    told = structs.asdict(replica)
    return {"status": "ready" if told.pop("ready") else "restarting", **told}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
