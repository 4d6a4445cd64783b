"""Small frozen configs: each part gets only what it reads. They cross the pipe as they are."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

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
    The last three are explained at Tuning.
    """

    path: str
    context: int | None = None
    slots: int | None = None
    threads: int | None = None
    gpu_layers: int = -1
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


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything an engine process is told. `runner` is an import path, `package.module:Class`.

    `faults` happen on purpose; see `engine/faults.py`.
    """

    runner: str
    model: RunnerConfig
    scheduler: SchedulerConfig = SchedulerConfig()
    faults: str = ""
