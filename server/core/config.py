"""Small frozen configs: each part gets only what it reads. They cross the pipe as they are."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from msgspec import Meta, Struct

from .types import ModelKind

KvType = Literal["f16", "q8_0"]
Threads = Annotated[int, Meta(ge=1, le=512)]
MicroBatch = Annotated[int, Meta(ge=16, le=512)]


class Tuning(Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is computed; `ingle tune` finds it. Threads of None: the cores allowed to us.

    A step is computed in pieces of `micro_batch` tokens. `flash_attention` is used where the
    model and the device have it; `kv_type` is what K and V are kept in.
    """

    threads: Threads | None = None
    micro_batch: MicroBatch = 512
    flash_attention: bool = True
    kv_type: KvType = "f16"


class RunnerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What it takes to load one model. None means: choose for this machine and this model.

    `context` is in tokens a slot; `gpu_layers` -1 offloads all of them where a GPU backend exists.
    Of this machine's memory it may take up to `memory_bytes`. The last three are explained at
    Tuning.
    """

    path: str
    context: int | None = None
    slots: int | None = None
    threads: int | None = None
    gpu_layers: int = -1
    memory_bytes: int | None = None
    micro_batch: MicroBatch = 512
    flash_attention: bool = True
    kv_type: KvType = "f16"


class SchedulerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`target_step_ms` bounds the gap between a stream's tokens while others prefill.

    `prefix_cache_bytes` of host memory keep the states that slots lose. `draft` lets sequences that
    copy guess several tokens a step. An engine that owes progress and makes none for
    `watchdog_seconds` (more, where a step is known to take long) is ended and started again.
    """

    target_step_ms: float = 200.0
    max_step_tokens: int = 512
    prefix_cache_bytes: int = 0
    draft: bool = True
    watchdog_seconds: float = 60.0


class StoreConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where an engine leaves its prefixes for the next one: a directory of at most `bytes`.

    `lasting` ones are of use after the server's end.
    """

    directory: str
    bytes: int
    lasting: bool = True


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything an engine process is told. `runner` is an import path, `package.module:Class`.

    `faults` happen on purpose; see `engine/faults.py`.
    """

    runner: str
    model: RunnerConfig
    scheduler: SchedulerConfig = SchedulerConfig()
    faults: str = ""
    store: StoreConfig | None = None


class ModelFacts(Struct, frozen=True):
    """What a model's file says of it before it is loaded. `size` in bytes, contexts in tokens."""

    kind: ModelKind = "generate"
    architecture: str = ""
    quantisation: str = ""
    parameters: int = 0
    size: int = 0
    context_train: int = 0
    chats: bool = False


class PoolModel(Struct, frozen=True):
    """One model of a pool.

    `bytes` is what its replicas should take together, until it is measured. It stays in memory for
    `keep` seconds once nobody uses it, for ever if `pin`, and is loaded at the start if `preload`.
    """

    engine: EngineConfig
    facts: ModelFacts = ModelFacts()
    bytes: int = 0
    keep: float = math.inf
    pin: bool = False
    preload: bool = True
    replicas: int = 1


class PoolConfig(Struct, frozen=True):
    """`memory_bytes` for all models together. One that waits for longer than `swap_seconds` is made
    room for, though others still ask for the one that is in memory."""

    memory_bytes: int = 1 << 62
    swap_seconds: float = 20.0
