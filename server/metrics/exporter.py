"""All Prometheus metrics: one registry, in the API process, fed with plain data by the engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import server
from server.core.stats import Refusal, RequestRecord, StepStats
from server.core.types import ModelInfo

_LATENCY = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320)
_GAPS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 1, 2, 5, 10)
_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10)
_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_BATCH = (1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)

_VLLM = {
    "ingle_requests_running": "vllm:num_requests_running",
    "ingle_requests_waiting": "vllm:num_requests_waiting",
    "ingle_kv_usage_ratio": "vllm:kv_cache_usage_perc",
    "ingle_prompt_tokens": "vllm:prompt_tokens",
    "ingle_generated_tokens": "vllm:generation_tokens",
    "ingle_prefix_queried_tokens": "vllm:prefix_cache_queries",
    "ingle_cached_tokens": "vllm:prefix_cache_hits",
    "ingle_time_to_first_token_seconds": "vllm:time_to_first_token_seconds",
    "ingle_inter_token_seconds": "vllm:inter_token_latency_seconds",
    "ingle_request_seconds": "vllm:e2e_request_latency_seconds",
    "ingle_queue_seconds": "vllm:request_queue_time_seconds",
}
"""The core metrics again under the names that existing dashboards and routers read."""

_USUAL_ENDS = ("SIGABRT", "SIGSEGV", "SIGKILL", "hang")
"""Of an engine: counted from 0, so that the first one is a rise."""
_OUTCOMES = ("stop", "length", "error", "cancelled")
"""Of an answer: likewise."""


class Exporter:
    """A `StatsSink` and an `AdmissionSink` that keeps Prometheus metrics. Only `models` can be
    model labels, and those that `count` adds."""

    def __init__(self, models: Iterable[str]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, ("model_name", *labels), registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ("model_name",), registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, ("model_name",), buckets=buckets, registry=registry)

        self._responses = counter(
            "ingle_http_requests", "HTTP responses by model, route and status.", "route", "status"
        )
        self._outcomes = counter(
            "ingle_requests_finished", "Generations by how they ended.", "outcome"
        )
        self._prompt = counter("ingle_prompt_tokens", "Prompt tokens, as in the usage blocks.")
        self._cached = counter("ingle_cached_tokens", "Prompt tokens that were not computed again.")
        self._queried = counter("ingle_prefix_queried_tokens", "Prompt tokens looked up for reuse.")
        self._generated = counter(
            "ingle_generated_tokens", "Generated tokens, as in the usage blocks."
        )
        self._reused = counter(
            "ingle_reused_tokens", "Prompt tokens reused, by where from.", "source"
        )
        self._drafted = counter("ingle_draft_tokens", "Tokens guessed from the text so far.")
        self._accepted = counter("ingle_draft_tokens_accepted", "Guessed tokens that were right.")
        refused = Counter(
            "ingle_requests_refused",
            "Requests not let in, or left waiting too long, by what there was too much of.",
            ("reason",),
            registry=registry,
        )
        reasons: tuple[Refusal, ...] = get_args(Refusal)
        self._refused = {reason: refused.labels(reason) for reason in reasons}
        self._waiting_tokens = Gauge(
            "ingle_waiting_prompt_tokens",
            "Tokens of prompts not read yet, as far as they are counted, else as guessed.",
            registry=registry,
        )
        self._restarts = counter(
            "ingle_engine_restarts",
            "Engine processes started again, by what ended the last one.",
            "reason",
        )
        self._running = gauge("ingle_requests_running", "Sequences in a slot.")
        self._waiting = gauge("ingle_requests_waiting", "Sequences waiting for a slot.")
        self._slots_busy = gauge("ingle_slots_busy", "Slots in use.")
        self._slots = gauge("ingle_slots", "Slots there are.")
        self._kv_used = gauge(
            "ingle_kv_used_tokens", "Tokens held in KV memory, cached ones included."
        )
        self._kv_total = gauge("ingle_kv_total_tokens", "Tokens KV memory has room for.")
        self._kv_ratio = gauge("ingle_kv_usage_ratio", "Share of KV memory in use, 0 to 1.")
        self._snapshot_bytes = gauge(
            "ingle_prefix_cache_bytes", "Host memory that keeps states of earlier sequences."
        )
        self._resident = gauge(
            "ingle_engine_resident_bytes", "Resident memory of the engine process."
        )
        self._load = gauge("ingle_model_load_seconds", "How long the last load of the model took.")
        self._loads = counter("ingle_model_loads", "Loads of the model that were done.")
        self._failed_loads = counter("ingle_model_load_failures", "Loads that did not work.")
        self._memory = Gauge(
            "ingle_pool_memory_bytes",
            "Memory that all models may take together, and that those loaded do.",
            ("kind",),
            registry=registry,
        )
        self._unloads = counter("ingle_model_unloads", "Times the model left memory.")
        self._restored = counter(
            "ingle_prefix_store_restored", "States of earlier engines found at a load."
        )
        self._store_refused = counter(
            "ingle_prefix_store_refused", "Files of states that were refused, by why.", "reason"
        )
        self._queue_seconds = histogram("ingle_queue_seconds", "Wait for a slot.", _LATENCY)
        self._ttft = histogram(
            "ingle_time_to_first_token_seconds", "From submission to the first token.", _LATENCY
        )
        self._gap = histogram(
            "ingle_inter_token_seconds", "Time a token, after the first one.", _GAPS
        )
        self._total = histogram(
            "ingle_request_seconds", "From submission to the last token.", _LATENCY
        )
        self._prefill = histogram(
            "ingle_prefill_tokens", "Prompt tokens computed in a step.", _TOKENS
        )
        self._step = histogram("ingle_step_seconds", "Duration of a step.", _STEPS)
        self._batch = histogram("ingle_batch_size", "Sequences computed in a step.", _BATCH)
        self._overhead = counter("ingle_step_overhead_seconds", "Step time outside the model.")
        Info("ingle_build", "The server's version.", registry=registry).info(
            {"version": server.__version__}
        )
        registry.register(_Aliases(registry))
        self._models: frozenset[str] = frozenset()
        self.count(models)

    def count(self, models: Iterable[str]) -> None:
        """These too can be labels from now on, and have their counters and histograms at 0."""
        for model in frozenset(models) - self._models:
            for outcome in _OUTCOMES:
                self._outcomes.labels(model, outcome)
            for reason in _USUAL_ENDS:
                self._restarts.labels(model, reason)
            for plain in (self._prompt, self._cached, self._queried, self._generated):
                plain.labels(model)
            for moves in (self._loads, self._unloads, self._failed_loads):
                moves.labels(model)
            for times in (self._queue_seconds, self._ttft, self._gap, self._total):
                times.labels(model)  # the first one is a rise only if there was a 0 before
            for steps in (self._prefill, self._step, self._batch, self._overhead):
                steps.labels(model)
        self._models |= frozenset(models)

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def on_response(self, model: str, route: str, status: int) -> None:
        self._responses.labels(model if model in self._models else "", route, str(status)).inc()

    def on_refused(self, why: Refusal) -> None:
        self._refused[why].inc()

    def on_waiting_tokens(self, tokens: int) -> None:
        self._waiting_tokens.set(tokens)

    def on_load(self, model: str, info: ModelInfo) -> None:
        self._loads.labels(model).inc()
        self._restored.labels(model).inc(info.restored_states)
        for reason, count in info.refused_states.items():
            self._store_refused.labels(model, reason).inc(count)
        self._load.labels(model).set(info.load_seconds)
        self._resident.labels(model).set(info.resident_bytes)
        self._slots.labels(model).set(info.slots)
        self._kv_total.labels(model).set(
            info.slots * info.context if info.kind == "generate" else 0
        )
        self._idle(model)

    def watch_memory(self, memory: Callable[[], tuple[int, int]]) -> None:
        """`memory`: bytes of the budget, and of it those in use. Asked at each scrape."""
        for index, kind in enumerate(("budget", "used")):
            self._memory.labels(kind).set_function(partial(_of_both, memory, index))

    def on_load_failed(self, model: str) -> None:
        self._failed_loads.labels(model).inc()

    def on_unload(self, model: str) -> None:
        self._unloads.labels(model).inc()
        for gauge in (self._resident, self._slots, self._kv_total):
            gauge.labels(model).set(0)
        self._idle(model)

    def _idle(self, model: str) -> None:
        for gauge in (
            self._snapshot_bytes,
            self._running,
            self._waiting,
            self._slots_busy,
            self._kv_used,
            self._kv_ratio,
        ):
            gauge.labels(model).set(0)

    def on_restart(self, model: str, reason: str) -> None:
        self._restarts.labels(model, reason).inc()
        self._resident.labels(model).set(0)
        self._idle(model)

    def on_step(self, model: str, stats: StepStats) -> None:
        self._running.labels(model).set(stats.running)
        self._waiting.labels(model).set(stats.waiting)
        self._slots_busy.labels(model).set(stats.slots_busy)
        self._kv_used.labels(model).set(stats.kv_used)
        self._kv_ratio.labels(model).set(stats.kv_used / max(1, stats.kv_total))
        self._resident.labels(model).set(stats.resident_bytes)
        self._snapshot_bytes.labels(model).set(stats.snapshot_bytes)
        if stats.drafted:
            self._drafted.labels(model).inc(stats.drafted)
            self._accepted.labels(model).inc(stats.accepted)
        if stats.batch_size:
            self._step.labels(model).observe(stats.step_seconds)
            self._batch.labels(model).observe(stats.batch_size)
            self._overhead.labels(model).inc(max(0.0, stats.step_seconds - stats.run_seconds))
        if stats.prefill_tokens:
            self._prefill.labels(model).observe(stats.prefill_tokens)
        for source in stats.reused.__struct_fields__:
            tokens = getattr(stats.reused, source)
            if tokens:
                self._reused.labels(model, source).inc(tokens)

    def on_gap(self, model: str, seconds: float, tokens: int) -> None:
        for _ in range(tokens):
            self._gap.labels(model).observe(seconds / tokens)

    def on_request(self, record: RequestRecord) -> None:
        model = record.model
        self._outcomes.labels(model, record.outcome).inc()
        self._prompt.labels(model).inc(record.prompt_tokens)
        self._queried.labels(model).inc(record.prompt_tokens)
        self._cached.labels(model).inc(record.cached_tokens)
        self._generated.labels(model).inc(record.completion_tokens)
        self._total.labels(model).observe(record.total_seconds)
        if record.first_token_seconds is not None:
            self._ttft.labels(model).observe(record.first_token_seconds)
        if record.queue_seconds is not None:
            self._queue_seconds.labels(model).observe(record.queue_seconds)


def _of_both(memory: Callable[[], tuple[int, int]], index: int) -> float:
    return float(memory()[index])


class _Aliases(Collector):
    """The same samples under vLLM's names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def describe(self) -> Iterator[Metric]:
        yield from ()

    def collect(self) -> Iterator[Metric]:
        for name, alias in _VLLM.items():
            for metric in self._registry.restricted_registry(_sample_names(name)).collect():
                renamed = Metric(alias, metric.documentation, metric.type)
                renamed.samples = [
                    sample._replace(name=alias + sample.name.removeprefix(name))
                    for sample in metric.samples
                ]
                yield renamed


def _sample_names(name: str) -> list[str]:
    return [name, f"{name}_total", f"{name}_bucket", f"{name}_count", f"{name}_sum"]
