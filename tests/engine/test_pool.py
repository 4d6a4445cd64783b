"""Models come into memory for those who ask, and leave it, with nobody's request lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import structs

from server.core.config import EngineConfig, ModelFacts, PoolConfig, PoolModel, RunnerConfig
from server.core.errors import (
    Conflict,
    EngineDown,
    ModelFileError,
    ModelLoading,
    ModelNotFound,
    OutOfMemory,
    ShuttingDown,
)
from server.core.types import Admitted, EngineEvent, Finished, GenerateRequest, ModelInfo, Usage
from server.engine.pool import ModelPool
from server.engine.pooled import PooledEngine
from tests.fakes import Recorder, model_info

from .asking import ask

pytestmark = pytest.mark.anyio

MIB = 1 << 20


class Process:
    """Stands in for an `EngineProcess`: loads when it is let, answers when it is let."""

    made: list[Process]

    def __init__(self, name: str, config: EngineConfig, stats: Recorder) -> None:
        self.name, self.config, self.stats = name, config, stats
        self.may_load, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_stop = asyncio.Event()
        self.fails: Exception | None = None
        self.loaded: ModelInfo | None = None
        self.stopped = False
        self.ready, self.progressing, self.load_left, self.pid = True, True, 3.0, 1
        for event in (self.may_load, self.may_answer, self.may_stop):
            event.set()
        type(self).made.append(self)
        type(self).prepare(self)

    prepare: Any = staticmethod(lambda _: None)

    async def start(self) -> None:
        await self.may_load.wait()
        if self.fails is not None:
            raise self.fails
        self.loaded = model_info(size=100 * MIB, resident_bytes=0, kv_bytes=0)
        self.stats.on_load(self.name, self.loaded)

    async def stop(self, *, final: bool = False) -> None:
        del final
        await self.may_stop.wait()
        self.stopped = True

    async def generate(self, *requests: GenerateRequest) -> AsyncGenerator[list[EngineEvent]]:
        assert self.loaded is not None and not self.stopped
        yield [Admitted(request.id, 3) for request in requests]
        await self.may_answer.wait()
        assert not self.stopped, "it was unloaded under a request"
        yield [Finished(request.id, "stop", Usage(3, 0, 1), 0.0) for request in requests]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    made: list[Process] = []
    monkeypatch.setattr(Process, "made", made, raising=False)
    return made


def prepared(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """What every process has from the start; `hold` names events that are not set."""

    def prepare(process: Process) -> None:
        for name, value in fields.items():
            if name == "hold":
                getattr(process, value).clear()
            else:
                setattr(process, name, value)

    monkeypatch.setattr(Process, "prepare", staticmethod(prepare))


def model(path: str = "echo:", size: int = 100, **more: Any) -> PoolModel:
    engine = EngineConfig(runner="x:Y", model=RunnerConfig(path=path))
    return PoolModel(engine, ModelFacts(), bytes=size * MIB, preload=False, **more)


@asynccontextmanager
async def serving(
    *, mib: int = 150, swap_seconds: float = 0.05, **models: PoolModel
) -> AsyncIterator[ModelPool]:
    pool = ModelPool(models, PoolConfig(mib * MIB, swap_seconds), Recorder(), make=Process)
    try:
        await pool.start()
        yield pool
    finally:
        await pool.stop()


async def answered(pool: ModelPool, name: str, keep: float | None = None) -> list[EngineEvent]:
    return [event async for events in started(pool, name, keep) for event in events]


def started(
    pool: ModelPool, name: str, keep: float | None = None
) -> AsyncGenerator[list[EngineEvent]]:
    return pool.get(name).generate(ask("hello", keep=keep))


async def until(holds: Any) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


async def test_all_that_ask_for_a_model_wait_for_one_load(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(monkeypatch, hold="may_load")
    async with serving(a=model()) as pool:
        asking = [asyncio.create_task(answered(pool, "a")) for _ in range(20)]
        await until(lambda: pool.status("a").waiting == 20)
        assert pool.status("a").state == "loading"
        processes[0].may_load.set()
        assert all(len(events) == 2 for events in await asyncio.gather(*asking))
        assert len(processes) == 1
        status = pool.status("a")
        assert (status.state, status.measured, status.requests) == ("loaded", True, 0)


async def test_a_busy_model_stays_until_it_is_idle_and_makes_room_then(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Process.generate` fails where it is unloaded under a request."""
    prepared(monkeypatch, hold="may_answer")
    async with serving(a=model(), b=model()) as pool:
        first = asyncio.create_task(answered(pool, "a"))
        await until(lambda: pool.status("a").requests == 1)
        second = asyncio.create_task(answered(pool, "b"))
        await until(lambda: pool.status("b").waiting == 1)
        await until(lambda: pool._residency["a"].draining)
        late = asyncio.create_task(answered(pool, "a"))
        await until(lambda: pool.status("a").waiting == 1)
        assert len(processes) == 1
        prepared(monkeypatch)
        processes[0].may_answer.set()
        for asked in (first, second, late):
            assert len(await asked) == 2
        assert [process.name for process in processes] == ["a", "b", "a"]
        assert [process.stopped for process in processes[:2]] == [True, True]


async def test_who_gives_up_waiting_leaves_nothing_behind(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(monkeypatch, hold="may_load")
    async with serving(a=model(keep=0.0)) as pool:
        asking = asyncio.create_task(answered(pool, "a"))
        await until(lambda: pool.status("a").state == "loading")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert pool.status("a").waiting == 0
        processes[0].may_load.set()
        await until(lambda: pool.status("a").state == "unloaded")


async def test_who_is_cancelled_as_it_is_let_in_is_not_counted_as_inside(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(monkeypatch, hold="may_load")
    async with serving(a=model()) as pool:
        asking = [asyncio.create_task(answered(pool, "a")) for _ in range(2)]
        await until(lambda: pool.status("a").waiting == 2)
        let_in = pool._waiters.let_in

        def let_in_and_cancel(name: str, now: float) -> None:
            let_in(name, now)
            asking[0].cancel()

        monkeypatch.setattr(pool._waiters, "let_in", let_in_and_cancel)
        processes[0].may_load.set()
        await asyncio.gather(*asking, return_exceptions=True)
        assert asking[0].cancelled() and len(asking[1].result()) == 2
        assert pool.status("a").requests == 0


async def test_a_load_that_fails_is_told_to_all_that_wait_and_not_tried_at_once(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(monkeypatch, fails=ModelFileError("/home/x/m.gguf is damaged"))
    async with serving(a=model(), b=model()) as pool:
        for _ in range(2):
            with pytest.raises(EngineDown, match="its file cannot be loaded") as caught:
                await answered(pool, "a")
            assert "/home" not in caught.value.message
            assert 1 <= caught.value.retry_after <= 5
        assert isinstance(pool._stats, Recorder) and pool._stats.failed_loads == 1
        assert len(processes) == 1
        assert pool.status("a").state == "failed"
        prepared(monkeypatch)
        assert len(await answered(pool, "b")) == 2
        await pool.load("a")  # its operator need not wait
        assert pool.status("a").error is None


async def test_what_can_never_fit_is_refused_at_once(processes: list[Process]) -> None:
    async with serving(a=model(size=200), b=model()) as pool:
        with pytest.raises(EngineDown, match=r"about 0\.2 GB of memory, more than"):
            await answered(pool, "a")
        assert processes == []
    too_large = model(size=200)
    with pytest.raises(OutOfMemory):
        async with serving(a=structs.replace(too_large, preload=True)):
            pass


@pytest.mark.usefixtures("processes")
async def test_keep_alive_of_a_request_is_how_long_its_model_stays() -> None:
    async with serving(a=model()) as pool:
        await answered(pool, "a", keep=0.0)
        await until(lambda: pool.status("a").state == "unloaded")
        await answered(pool, "a", keep=60.0)
        status = pool.status("a")
        assert status.keep == 60 and 59 < (status.unloads_in or 0) <= 60
        await answered(pool, "a")
        assert pool.status("a").unloads_in is None


async def test_an_operator_unloads_what_is_idle_and_waits_for_what_is_not(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(monkeypatch, hold="may_answer")
    async with serving(a=model(), mib=400, b=model(pin=True)) as pool:
        running = asyncio.create_task(answered(pool, "a"))
        await until(lambda: pool.status("a").requests == 1)
        unloading = asyncio.create_task(pool.unload("a"))
        await until(lambda: pool.status("a").unloads_in is None)
        later = asyncio.create_task(answered(pool, "a"))
        await until(lambda: pool.status("a").waiting == 1)
        assert not unloading.done()
        prepared(monkeypatch)
        processes[0].may_answer.set()
        await unloading
        assert processes[0].stopped
        assert len(await running) == len(await later) == 2
        with pytest.raises(Conflict):
            await pool.unload("b")
        with pytest.raises(ModelNotFound):
            await pool.unload("c")


async def test_at_the_start_what_fits_is_loaded_and_nobody_waits_until_then(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(monkeypatch, hold="may_load")
    models = {name: structs.replace(model(), preload=True) for name in "ab"}
    pool = ModelPool(models, PoolConfig(150 * MIB), Recorder(), make=Process)
    starting = asyncio.create_task(pool.start())
    await until(lambda: processes)
    with pytest.raises(ModelLoading) as caught:
        await answered(pool, "a")
    assert caught.value.retry_after == 3.0 and not pool.ready
    processes[0].may_load.set()
    await starting
    assert pool.ready and [process.name for process in processes] == ["a"]
    await pool.stop()
    with pytest.raises(ShuttingDown):
        await answered(pool, "b")


async def test_a_server_that_stops_ends_loads_and_finishes_unloads(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(monkeypatch, hold="may_stop")
    async with serving(a=model(), b=model()) as pool:
        await answered(pool, "a", keep=0.0)
        await until(lambda: pool.status("a").state == "unloading")
        prepared(monkeypatch, hold="may_load")
        asking = asyncio.create_task(answered(pool, "b"))
        await until(lambda: pool.status("b").waiting == 1)
        stopping = asyncio.create_task(pool.stop())
        await asyncio.sleep(0)
        processes[0].may_stop.set()
        await stopping
        with pytest.raises(ShuttingDown):
            await asking
        assert all(process.stopped for process in processes)


async def test_a_changed_model_serves_those_inside_as_it_is_and_others_as_it_will_be(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(monkeypatch, hold="may_answer")
    async with serving(a=model("old"), b=model("old"), mib=400) as pool:
        running = [asyncio.create_task(answered(pool, name)) for name in "ab"]
        await until(lambda: pool.status("a").requests == pool.status("b").requests == 1)
        config = PoolConfig(400 * MIB, 0.05)
        pool.reconfigure({"a": model("new"), "c": model("new")}, config)
        assert pool.names() == ["a", "c"]
        with pytest.raises(ModelNotFound):
            pool.get("b")
        prepared(monkeypatch)
        late = [asyncio.create_task(answered(pool, name)) for name in "ac"]
        await until(lambda: pool.status("a").waiting == 1)
        for process in processes:
            process.may_answer.set()
        for asked in (*running, *late):
            assert len(await asked) == 2
        await until(lambda: "b" not in pool._residency)
        paths = [(process.name, process.config.model.path) for process in processes]
        assert sorted(paths) == [("a", "new"), ("a", "old"), ("b", "old"), ("c", "new")]
        assert [process.stopped for process in processes[:2]] == [True, True]


async def test_a_model_that_cannot_be_loaded_as_it_is_now_is_served_as_it_was(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(a=model("old")) as pool:
        await answered(pool, "a")
        prepared(monkeypatch, fails=ModelFileError("no such tensor"), hold="may_load")
        pool.reconfigure({"a": model("new")}, PoolConfig(150 * MIB, 0.05))
        asking = asyncio.create_task(answered(pool, "a"))
        await until(lambda: len(processes) == 2)
        prepared(monkeypatch)
        processes[1].may_load.set()
        assert len(await asking) == 2
        assert [process.config.model.path for process in processes] == ["old", "new", "old"]
        assert pool.get("a").model.engine.model.path == "old"


async def test_who_waits_for_it_to_leave_is_told_when_it_goes_back_to_what_it_was(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(a=model("old")) as pool:
        await answered(pool, "a")
        prepared(monkeypatch, fails=ModelFileError("no such tensor"), hold="may_load")
        pool.reconfigure({"a": model("new", 120)}, PoolConfig(150 * MIB, 0.05))
        asking = asyncio.create_task(answered(pool, "a"))
        await until(lambda: len(processes) == 2)
        assert pool.status("a").bytes == 120 * MIB
        unloading = asyncio.create_task(pool.unload("a"))
        await asyncio.sleep(0)
        prepared(monkeypatch, hold="may_load")
        processes[1].may_load.set()
        await asyncio.wait_for(unloading, 5)
        await until(lambda: len(processes) == 3)
        assert pool.status("a").bytes == 100 * MIB
        processes[2].may_load.set()
        assert len(await asking) == 2


@pytest.mark.usefixtures("processes")
async def test_a_bug_in_one_decision_does_not_end_all_that_follow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("server.engine.pool._AFTER_BUG_SECONDS", 0.01)
    async with serving(a=model()) as pool:
        decide = pool._residency.decide
        bugs = iter([True])
        monkeypatch.setattr(
            pool._residency,
            "decide",
            lambda *given: 1 / 0 if next(bugs, False) else decide(*given),
        )
        assert len(await answered(pool, "a")) == 2
    assert "a bug while models were moved" in caplog.text


async def test_who_found_a_model_before_it_was_taken_out_is_served(
    processes: list[Process],
) -> None:
    async with serving(a=model(), b=model()) as pool:
        found: PooledEngine = pool.get("a")
        pool.reconfigure({"b": model()}, PoolConfig(150 * MIB, 0.05))
        await until(lambda: "a" not in pool._residency)
        assert len([e async for es in found.generate(ask("hello")) for e in es]) == 2
        await until(lambda: "a" not in pool._residency)
        assert processes[0].stopped


@pytest.mark.usefixtures("processes")
async def test_memory_that_others_took_is_not_counted_on() -> None:
    """Within the budget, but not there: an idle model makes room all the same."""
    free = [1000 * MIB]
    pool = ModelPool(
        {"a": model(), "b": model()},
        PoolConfig(400 * MIB, 0.05),
        Recorder(),
        make=Process,
        available=lambda: free[0],
    )
    await pool.start()
    await answered(pool, "a")
    free[0] = 50 * MIB
    await answered(pool, "b")
    assert pool.status("a").state == "unloaded"
    await pool.stop()


@pytest.mark.parametrize("where", ["start", "stop"])
async def test_a_bug_in_an_engine_leaves_nobody_waiting(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    bug = ValueError("nobody thought of this")

    async def broken(*_: object, **__: object) -> None:
        raise bug

    async with serving(a=model()) as pool:
        if where == "stop":
            await answered(pool, "a")
        with monkeypatch.context() as patch:
            patch.setattr(Process, where, broken)
            if where == "start":
                with pytest.raises(EngineDown, match="could not be loaded"):
                    await asyncio.wait_for(answered(pool, "a"), 5)
                return
            await asyncio.wait_for(pool.unload("a"), 5)
            assert pool.status("a").state == "unloaded"
        await asyncio.wait_for(answered(pool, "a"), 5)
    assert len(processes) == 2


async def test_who_waits_for_what_no_longer_fits_is_told(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    del processes
    prepared(monkeypatch, hold="may_answer")
    async with serving(a=model(), b=model()) as pool:
        busy = asyncio.create_task(answered(pool, "a"))
        await until(lambda: pool.status("a").requests == 1)
        waiting = asyncio.create_task(answered(pool, "b"))
        await until(lambda: pool.status("b").waiting == 1)
        pool.reconfigure({"a": model(), "b": model()}, PoolConfig(50 * MIB, 1.0))
        with pytest.raises(EngineDown, match="needs"):
            await asyncio.wait_for(waiting, 5)
        busy.cancel()


async def test_what_was_repaired_while_it_failed_is_loaded_for_those_who_wait(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(monkeypatch, hold="may_load")
    async with serving(a=model("broken")) as pool:
        waiting = asyncio.create_task(answered(pool, "a"))
        await until(lambda: processes)
        pool.reconfigure({"a": model("repaired")}, PoolConfig(150 * MIB, 1.0))
        prepared(monkeypatch)
        processes[0].fails = ModelFileError("it is damaged")
        processes[0].may_load.set()
        assert await asyncio.wait_for(waiting, 5)
        assert [process.config.model.path for process in processes] == ["broken", "repaired"]


async def test_two_changes_that_fail_lead_back_to_what_was_loaded(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(a=model("good")) as pool:
        processes_busy = started(pool, "a")
        await anext(processes_busy)
        for path in ("bad", "worse"):
            pool.reconfigure({"a": model(path)}, PoolConfig(150 * MIB, 1.0))

        def prepare(process: Process) -> None:
            if process.config.model.path != "good":
                process.fails = ModelFileError("it is damaged")

        monkeypatch.setattr(Process, "prepare", staticmethod(prepare))
        async for _ in processes_busy:
            pass
        assert await asyncio.wait_for(answered(pool, "a"), 5)
        assert [process.config.model.path for process in processes] == ["good", "worse", "good"]


async def test_what_is_put_back_before_it_left_is_as_it_was(processes: list[Process]) -> None:
    async with serving(a=model(), b=model()) as pool:
        busy = started(pool, "a")
        await anext(busy)
        pool.reconfigure({"b": model()}, PoolConfig(150 * MIB, 1.0))
        pool.reconfigure({"a": model(pin=True), "b": model()}, PoolConfig(150 * MIB, 1.0))
        assert await asyncio.wait_for(answered(pool, "a"), 5), "it waits for the other to end"
        assert pool.status("a").pinned and len(processes) == 1
        await busy.aclose()
