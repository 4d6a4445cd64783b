"""The language of faults, and that nothing happens unless two say so."""

from __future__ import annotations

import pytest

from server.core.config import EngineConfig, RunnerConfig
from server.core.errors import ConfigError, ModelFileError
from server.core.plan import BatchPlan, Row, StepResult
from server.core.types import GenerateRequest, TextPiece
from server.engine.faults import Fault, FaultyRunner, Span, arm, parse

CONFIG = EngineConfig("server.llama.runner:LlamaRunner", RunnerConfig("model.gguf"))


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("abort@step=20", [Fault("abort", step=Span(20, 20))]),
        ("segv@step=2..,start=1..", [Fault("segv", step=Span(2), start=Span(1))]),
        ("sleep=4000@step=3..5;", [Fault("sleep", 4000, Span(3, 5))]),
        ("decode=-1@word=bad", [Fault("decode", -1, word="bad")]),
        ("nan@word=x,step=2 ; spin@step=9", [Fault("nan", 0, Span(2, 2), "x"),
                                             Fault("spin", step=Span(9, 9))]),
        ("load_fail@start=2..", [Fault("load_fail", start=Span(2))]),
        ("load_fail", [Fault("load_fail")]),
        ("", []),
    ],
)  # fmt: skip
def test_what_is_said_is_meant(text: str, faults: list[Fault]) -> None:
    assert parse(text) == faults


@pytest.mark.parametrize(
    "text",
    [
        "boom@step=1", "abort", "abort@", "abort@step=0", "abort@step=5..3", "abort@step=x",
        "abort=3@step=1", "sleep@step=1", "sleep=-5@step=1", "decode=7@step=1", "decode=0@step=1",
        "abort@start=1", "load_fail@step=1", "abort@step=1,step=2", "abort@word=", "abort@when=1",
        "abort @ step = 1 of 2", "nan=2@step=1",
    ],
)  # fmt: skip
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="INGLE_FAULTS: ") as refused:
        parse(text)
    assert "\n" not in refused.value.message


def test_nothing_is_armed_unless_the_setting_allows_it(caplog: pytest.LogCaptureFixture) -> None:
    configs = {"m": CONFIG}
    assert arm(configs, "", allowed=True) == configs
    assert not caplog.records
    assert arm(configs, "abort@step=1", allowed=False) == configs
    assert "does nothing" in caplog.text
    armed = arm(configs, "abort@step=1", allowed=True)["m"]
    assert (armed.faults, armed.runner) == (
        "abort@step=1",
        "server.llama.breakable:BreakableRunner",
    )
    with pytest.raises(ConfigError):
        arm(configs, "nonsense", allowed=True)


class Runner:
    """Counts what reaches it."""

    def __init__(self) -> None:
        self.loads = self.runs = 0

    def load(self, config: RunnerConfig) -> None:
        del config
        self.loads += 1

    def open(self, *_: object) -> None: ...

    def close(self, slot: int) -> None: ...

    def run(self, plan: BatchPlan) -> StepResult:
        del plan
        self.runs += 1
        return StepResult({}, 0.0)


def plan(*slots: int) -> BatchPlan:
    return BatchPlan(rows=tuple(Row(slot, 0, [1]) for slot in slots))


def test_a_fault_comes_in_its_step_and_in_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[tuple[int, str]] = []
    for number in (1, 2):
        faulty = FaultyRunner(Runner(), "spin@step=2; sleep=1@step=3..4,start=2..", number)
        monkeypatch.setattr(
            faulty, "_happen", lambda fault, now=number: happened.append((now, fault.kind))
        )
        for _ in range(5):
            faulty.run(plan(0))
            faulty.run(BatchPlan())
        assert faulty.runs == 10
    assert happened == [(1, "spin"), (2, "sleep"), (2, "sleep")]


def test_a_word_counts_while_its_request_is_in_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    faulty = FaultyRunner(Runner(), "spin@word=bad", 1)
    monkeypatch.setattr(faulty, "_happen", lambda fault: happened.append(fault.kind))
    faulty.open(0, GenerateRequest("a", (TextPiece("a good "), TextPiece("one"))), [1], None)
    faulty.open(1, GenerateRequest("b", (TextPiece("a bad one"),)), [1], None)
    faulty.run(plan(0))
    assert not happened
    faulty.run(plan(0, 1))
    assert happened == ["spin"]
    faulty.close(1)
    faulty.run(plan(0, 1))
    assert happened == ["spin"]


def test_a_load_fails_where_that_is_asked_for_and_native_faults_want_native_code() -> None:
    runner = Runner()
    with pytest.raises(ModelFileError):
        FaultyRunner(runner, "load_fail@start=2..", 2).load(RunnerConfig(""))
    with pytest.raises(ConfigError, match="nan needs a model"):
        FaultyRunner(runner, "nan@step=1", 1).load(RunnerConfig(""))
    assert not runner.loads
    FaultyRunner(runner, "load_fail@start=2..", 1).load(RunnerConfig(""))
    assert runner.loads == 1
