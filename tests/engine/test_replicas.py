"""Several processes of one model: a conversation stays where its beginning was read."""

from __future__ import annotations

import random
from typing import Any

import pytest

from server.core.config import EngineConfig, RunnerConfig
from server.core.errors import ModelFileError
from server.core.types import GenerateRequest, ModelInfo, TextPiece
from server.engine.affinity import BLOCK_CHARACTERS, Affinity, blocks_of
from server.engine.replicas import Replicas
from tests.fakes import Recorder, model_info, step_stats

CONFIG = EngineConfig(runner="x:Y", model=RunnerConfig(path="echo:"))


def request(text: str, **more: Any) -> GenerateRequest:
    return GenerateRequest("r", (TextPiece(text[:100]), TextPiece(text[100:])), **more)


def words(seed: int, blocks: float) -> str:
    chance = random.Random(seed)
    return "".join(chance.choice("abcdef ") for _ in range(int(blocks * BLOCK_CHARACTERS)))


class Process:
    def __init__(self, name: str, _: EngineConfig, stats: Recorder) -> None:
        self.name, self.stats = name, stats
        self.ready = self.progressing = True
        self.load_left, self.pid = 0.0, 1
        self.loaded: ModelInfo | None = None
        self.fails = self.stopped = False

    async def start(self) -> None:
        if self.fails:
            raise ModelFileError("damaged")
        self.loaded = model_info(slots=2, resident_bytes=1000)
        self.stats.on_load(self.name, self.loaded)

    async def stop(self, *, final: bool = False) -> None:
        del final
        self.stopped = True


@pytest.fixture
async def replicas() -> Replicas:
    made = Replicas("m", CONFIG, 3, Recorder(), Process)
    await made.start()
    return made


def test_blocks_are_of_the_text_and_of_its_scope() -> None:
    text = words(1, 3.5)
    blocks = blocks_of(request(text))
    assert len(blocks) == 4
    assert blocks_of(request(text + words(2, 2)))[:3] == blocks[:3]
    assert blocks_of(request("x" + text[1:]))[3] != blocks[3]
    assert not set(blocks) & set(blocks_of(request(text, scope="other")))
    ids = blocks_of(request("", prompt_tokens=tuple(range(200))))
    assert len(ids) == 4 and blocks_of(request("", prompt_tokens=tuple(range(128)))) == ids[:2]


@pytest.mark.anyio
async def test_conversations_go_on_where_they_began(replicas: Replicas) -> None:
    """Turn after turn, in any order, beside others."""
    chance, begun = random.Random(5), {}
    texts = {talk: words(talk, 12) for talk in range(9)}
    for _ in range(200):
        talk = chance.choice(list(texts))
        with replicas.one(request(texts[talk])) as process:
            assert begun.setdefault(talk, process) is process
        texts[talk] += words(chance.randrange(99), 0.7)
    assert len(set(map(id, begun.values()))) == 3, "all of them are used"


@pytest.mark.anyio
async def test_a_busy_replica_does_not_keep_what_another_could_read_at_once(
    replicas: Replicas,
) -> None:
    short = words(1, 2)
    with replicas.one(request(short)) as first:
        pass
    with (
        replicas.one(request(short)) as same,
        replicas.one(request(short + words(2, 1))) as other,
        replicas.one(request(words(3, 1))) as third,
    ):
        assert same is first and len({id(first), id(other), id(third)}) == 3


@pytest.mark.anyio
async def test_one_that_is_not_ready_gets_nothing_while_another_is(replicas: Replicas) -> None:
    text = words(1, 40)
    with replicas.one(request(text)) as first:
        pass
    first.ready = False
    with replicas.one(request(text)) as second:
        assert second is not first
    for process in replicas._processes:
        process.ready = False
    with replicas.one(request(text)) as any_of_them:
        assert any_of_them in replicas._processes


@pytest.mark.anyio
async def test_a_replica_that_was_started_again_has_read_nothing(replicas: Replicas) -> None:
    text = words(1, 40)
    with replicas.one(request(text)) as first:
        pass
    with replicas.one(request(words(2, 1))), replicas.one(request(text)) as same:
        assert same is first
        first.stats.on_restart("m", "SIGKILL")
        with replicas.one(request(text)) as second:
            assert second is not first
    assert [status.restarts for status in replicas.status()].count(1) == 1


@pytest.mark.anyio
async def test_their_numbers_are_told_as_of_one_model() -> None:
    stats = Recorder()
    replicas = Replicas("m", CONFIG, 2, stats, Process)
    await replicas.start()
    assert stats.loads[-1].slots == 4 and stats.loads[-1].resident_bytes == 2000
    for process, running in zip(replicas._processes, (1, 2), strict=True):
        process.stats.on_step("m", step_stats(running=running, kv_used=10, kv_total=100))
    told = stats.steps[-1]
    assert (told.running, told.kv_used, told.kv_total, told.batch_size) == (3, 20, 200, 2)
    replicas._processes[0].stats.on_restart("m", "SIGSEGV")
    replicas._processes[1].stats.on_step("m", step_stats(running=1))
    assert stats.steps[-1].running == 1 and stats.restarts == ["SIGSEGV"]


@pytest.mark.anyio
async def test_one_that_cannot_load_takes_the_others_with_it() -> None:
    replicas = Replicas("m", CONFIG, 2, Recorder(), Process)
    replicas._processes[1].fails = True
    with pytest.raises(ModelFileError):
        await replicas.start()
    assert all(process.stopped for process in replicas._processes)


def test_what_is_remembered_of_prompts_is_bounded() -> None:
    affinity = Affinity(1, room=100)
    for seed in range(20):
        affinity.note(0, blocks_of(request(words(seed, 20))))
    assert len(affinity._read[0]) == 100
