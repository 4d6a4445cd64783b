"""Small frozen configs: each part gets only what it reads. They cross the pipe as they are."""

from __future__ import annotations

from msgspec import Struct


class RunnerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What it takes to load one model. None means: choose for this machine and this model.

    `context` is in tokens a slot; `gpu_layers` -1 offloads all of them where a GPU backend exists.
    """

    path: str
    context: int | None = None
    slots: int | None = None
    threads: int | None = None
    gpu_layers: int = -1


class SchedulerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`target_step_ms` bounds the gap between a stream's tokens while others prefill."""

    target_step_ms: float = 200.0
    max_step_tokens: int = 512


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything an engine process is told. `runner` is an import path, `package.module:Class`."""

    runner: str
    model: RunnerConfig
    scheduler: SchedulerConfig = SchedulerConfig()
