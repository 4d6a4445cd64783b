"""The exporter: numbers that agree with the usage blocks, and labels that nobody can multiply."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

import server
from server.app import create_app
from server.core.errors import EngineError
from server.core.stats import RequestRecord, Reuse
from server.core.types import GenerateRequest
from server.metrics.exporter import _VLLM, Exporter
from server.services.admission import Admission
from server.settings import Settings
from tests.fakes import FakeEngine, FakePool, Moment, model_info, says, step_stats

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}]}


def _samples(exporter: Exporter) -> Iterator[Sample]:
    """Parsed as a Prometheus server would parse it; fails on what is not the format."""
    for family in text_string_to_metric_families(exporter.render().decode()):
        yield from family.samples


def _value(exporter: Exporter, name: str, **labels: str) -> float:
    (value,) = [
        sample.value
        for sample in _samples(exporter)
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return value


def _series(exporter: Exporter) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {(sample.name, tuple(sorted(sample.labels.items()))) for sample in _samples(exporter)}


def _client(exporter: Exporter, *engines: FakeEngine) -> httpx2.AsyncClient:
    app = create_app(Settings(), FakePool(*engines), exporter, {}, Admission(1))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost")


def _record(**changes: object) -> RequestRecord:
    fields = {
        "model": "fake",
        "outcome": "stop",
        "prompt_tokens": 10,
        "cached_tokens": 4,
        "completion_tokens": 6,
        "queue_seconds": 0.1,
        "first_token_seconds": 0.2,
        "total_seconds": 1.5,
    }
    return RequestRecord(**{**fields, **changes})


async def test_token_counters_are_the_sums_of_the_usage_blocks() -> None:
    exporter, usages = Exporter(["fake"]), []
    engine = FakeEngine()
    async with _client(exporter, engine) as client:
        for number in range(6):
            text = "x" * (number + 1)
            engine.script = says(text, prompt=7 + number, cached=number)
            body = HI | {"n": 1 + number % 3}
            if number % 2:
                stream = {"stream": True, "stream_options": {"include_usage": True}}
                response = await client.post(CHAT, json=body | stream)
                usages.append(json.loads(response.text.split("\n\n")[-3][6:])["usage"])
            else:
                usages.append((await client.post(CHAT, json=body)).json()["usage"])
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    for name, expected in (
        ("ingle_prompt_tokens_total", sum(usage["prompt_tokens"] for usage in usages)),
        ("ingle_generated_tokens_total", sum(usage["completion_tokens"] for usage in usages)),
        ("ingle_cached_tokens_total", cached),
        ("ingle_request_seconds_count", 6),
    ):
        assert _value(exporter, name) == expected, name
    assert _value(exporter, "ingle_requests_finished_total", outcome="stop") == 6
    assert cached and usages[2]["completion_tokens"] == 9


async def test_what_breaks_half_way_is_counted_as_far_as_it_came() -> None:
    def dies(requests: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        return [*list(says("Hello")(requests))[:3], EngineError("it died")]

    exporter = Exporter(["fake"])
    async with _client(exporter, FakeEngine(dies)) as client:
        await client.post(CHAT, json=HI)
    assert _value(exporter, "ingle_requests_finished_total", outcome="error") == 1
    assert _value(exporter, "ingle_generated_tokens_total") == 2
    assert _value(exporter, "ingle_http_requests_total", status="500") == 1


def test_vllms_names_carry_our_numbers() -> None:
    exporter = Exporter(["fake"])
    exporter.on_load("fake", model_info())
    exporter.on_step("fake", step_stats(kv_used=1024, kv_total=4096, waiting=3))
    exporter.on_request(_record())
    exporter.on_gap("fake", 0.3, 3)
    samples = list(_samples(exporter))
    for ours, theirs in _VLLM.items():
        own = {
            (s.name.removeprefix(ours), *s.labels.items()): s.value
            for s in samples
            if s.name.removeprefix(ours) in ("", "_total", "_bucket", "_count", "_sum")
        }
        alias = {
            (s.name.removeprefix(theirs), *s.labels.items()): s.value
            for s in samples
            if s.name.removeprefix(theirs) in ("", "_total", "_bucket", "_count", "_sum")
        }
        assert own and own == alias, ours
    assert _value(exporter, "vllm:num_requests_waiting") == 3
    assert _value(exporter, "vllm:kv_cache_usage_perc") == 0.25
    assert _value(exporter, "vllm:prefix_cache_hits_total") == 4


def test_dashboards_find_their_series_before_the_first_request() -> None:
    exporter = Exporter(["a", "b"])
    for model in ("a", "b"):
        assert _value(exporter, "ingle_prompt_tokens_total", model_name=model) == 0
        for reason in ("SIGSEGV", "hang"):
            found = _value(exporter, "ingle_engine_restarts_total", model_name=model, reason=reason)
            assert found == 0
    assert _value(exporter, "ingle_build_info", version=server.__version__) == 1


async def test_no_client_can_make_new_series() -> None:
    exporter = Exporter(["fake"])
    async with _client(exporter, FakeEngine()) as client:

        async def ask_oddly(word: str) -> None:
            await client.get(f"/{word}")
            await client.get(f"/v1/{word}?q={word}")
            await client.get(f"/v1/models/{word}/{word}")
            await client.request(word.upper(), "/v1/models")
            await client.request(word.upper(), f"/{word}")
            await client.post(CHAT, json=HI | {"model": word, "user": word})
            await client.get("/livez", headers={"x-request-id": word, "host": word})
            await client.post(f"/v1/chat/completions/{word}", json=HI)

        await ask_oddly("zebra")
        before = _series(exporter)
        for number in range(20):
            await ask_oddly(f"odd{number}")
        assert _series(exporter) == before
    assert "zebra" not in exporter.render().decode()


def test_a_model_that_is_not_served_is_no_label() -> None:
    exporter = Exporter(["fake"])
    exporter.on_response("gpt-9", "/chat/completions", 404)
    assert _value(exporter, "ingle_http_requests_total", status="404", model_name="") == 1


async def test_responses_are_counted_by_model_route_and_status() -> None:
    exporter = Exporter(["fake"])
    async with _client(exporter, FakeEngine()) as client:
        await client.post(CHAT, json=HI)
        await client.post(CHAT, json=HI | {"n": 0})
        await client.get("/nope")
        answer = await client.get("/metrics")
    routes = {
        (s.labels["model_name"], s.labels["route"], s.labels["status"]): s.value
        for s in _samples(exporter)
        if s.name == "ingle_http_requests_total"
    }
    assert routes.pop(("", "unmatched", "404")) == 1
    assert routes.pop(("", "/metrics", "200")) == 1
    (ok, refused) = sorted(routes, key=lambda labels: labels[2])
    assert (ok[0], ok[2], refused[2]) == ("fake", "200", "400")
    assert all(route.endswith("/chat/completions") for _, route, _ in (ok, refused))
    assert answer.headers["content-type"].startswith("text/plain; version=")


async def test_a_bug_is_counted_too() -> None:
    exporter = Exporter(["fake"])

    def bug(_: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        raise ZeroDivisionError

    async with _client(exporter, FakeEngine(bug)) as client:
        response = await client.post(CHAT, json=HI)
    assert response.headers["x-request-id"]
    assert _value(exporter, "ingle_http_requests_total", status="500") == 1


def test_a_step_sets_the_gauges_and_observes_the_histograms() -> None:
    exporter = Exporter(["fake"])
    exporter.on_load("fake", model_info(slots=4, context=1024, load_seconds=0.5))
    assert _value(exporter, "ingle_model_load_seconds") == 0.5
    assert _value(exporter, "ingle_kv_total_tokens") == 4096
    reused = Reuse(slot=5, copy=6, merge=7)
    stats = step_stats(prefill_tokens=100, batch_size=3, reused=reused, resident_bytes=1 << 30)
    exporter.on_step("fake", stats)
    exporter.on_step("fake", step_stats(batch_size=0, running=0, slots_busy=0))
    assert _value(exporter, "ingle_prefill_tokens_sum") == 100
    assert _value(exporter, "ingle_step_seconds_count") == 1, "an idle step is no step"
    assert _value(exporter, "ingle_batch_size_sum") == 3
    assert _value(exporter, "ingle_requests_running") == 0
    for source in ("slot", "copy", "merge"):
        expected = getattr(reused, source)
        assert _value(exporter, "ingle_reused_tokens_total", source=source) == expected
    assert _value(exporter, "ingle_step_overhead_seconds_total") == pytest.approx(0.001)


def test_a_model_of_vectors_has_no_kv_memory() -> None:
    exporter = Exporter(["fake"])
    exporter.on_load("fake", model_info(kind="embed", slots=64, context=512))
    assert _value(exporter, "ingle_kv_total_tokens") == 0


def test_tokens_that_come_together_share_their_gap() -> None:
    exporter = Exporter(["fake"])
    exporter.on_gap("fake", 0.3, 3)
    assert _value(exporter, "ingle_inter_token_seconds_count") == 3
    assert _value(exporter, "ingle_inter_token_seconds_sum") == pytest.approx(0.3)


def test_an_engine_that_came_back_starts_from_nothing_running() -> None:
    exporter = Exporter(["fake"])
    exporter.on_step("fake", step_stats(running=2))
    exporter.on_restart("fake", "SIGKILL")
    exporter.on_load("fake", model_info())
    assert _value(exporter, "ingle_engine_restarts_total", reason="SIGKILL") == 1
    assert _value(exporter, "ingle_requests_running") == 0
    assert _value(exporter, "ingle_kv_used_tokens") == 0


def test_what_never_happened_is_not_observed() -> None:
    exporter = Exporter(["fake"])
    exporter.on_request(_record(outcome="cancelled", queue_seconds=None, first_token_seconds=None))
    counted = {s.name: s.value for s in _samples(exporter) if s.name.endswith("_count")}
    assert counted.get("ingle_queue_seconds_count", 0) == 0
    assert counted.get("ingle_time_to_first_token_seconds_count", 0) == 0
    assert counted["ingle_request_seconds_count"] == 1
