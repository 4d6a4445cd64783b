from __future__ import annotations

from pathlib import Path

import pytest

from server.core.config import RunnerConfig, Tuning
from server.core.errors import EngineError
from server.llama.probe import Compare, Encode, MeasureSpeed, Quality
from server.tune.candidates import Candidate
from server.tune.report import Report
from server.tune.tuner import Plan, Tuner
from tests.tune.fake_machine import FakeMachine, model_in, store_for

STEP_BY_STEP = Plan("throughput", ("Q8_0", "BF16", "Q4_0"))


def tune(folder: Path, machine: FakeMachine, plan: Plan = STEP_BY_STEP) -> Report:
    model = model_in(folder)
    store = store_for(folder, model)
    stages: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        stages.append((stage, done, total))

    with store.exclusively():
        report = Tuner(model, store, plan, prober=machine, progress=progress).run()
    assert ("last run", stages[-1][1]) == (stages[-1][0], stages[-1][2])
    assert not list(store.directory.glob("*.part")), "what is not kept is removed"
    return report


def faster(form: str, config: RunnerConfig) -> float:
    """Q8_0 and one thread are each faster, and so is the lossy cousin."""
    by_format = {"": 1.0, "Q8_0": 1.5, "BF16": 1.3, "Q4_0": 3.0}
    return by_format[form] * (1.2 if config.threads == 1 else 1.0)


def test_the_best_of_each_race_goes_on(tmp_path: Path) -> None:
    machine = FakeMachine(faster, noise=0.02)
    machine.qualities["Q4_0"] = Quality(0.26, 0.73, 361)
    report = tune(tmp_path, machine)
    assert report.choice == Candidate("Q8_0", Tuning(threads=1))
    assert report.gain == pytest.approx(0.8, abs=0.05)
    assert report.quality == Quality(0.004, 0.96, 361)
    assert [race.factor for race in report.races][:2] == ["weights", "threads"]
    verdicts = {row.name: row.verdict for row in report.races[0].rows}
    assert verdicts == {
        "as shipped": "beaten",
        "Q8_0 weights": "best",
        "BF16 weights": "faster, but another is chosen",
        "Q4_0 weights": "answers differ too much",
    }


def test_measurements_take_turns(tmp_path: Path) -> None:
    machine = FakeMachine(faster)
    tune(tmp_path, machine, Plan("latency", ("Q8_0",), factors=(), rounds=2))
    paths = [Path(r.config.path).suffix for r in machine.asked if isinstance(r, MeasureSpeed)]
    assert paths == [".gguf", *[".gguf", ".part"] * 4]


def test_nothing_pays(tmp_path: Path) -> None:
    report = tune(tmp_path, FakeMachine(lambda _form, _config: 1.0, noise=0.02))
    assert report.choice is None
    assert report.quality is None
    assert report.gain == 0
    assert report.before == report.after


def test_a_winner_that_fails_the_last_run_is_not_kept(tmp_path: Path) -> None:
    machine = FakeMachine(lambda _form, _config: 1.0)
    measured = 0

    def lucky_at_first(form: str, _config: RunnerConfig) -> float:
        nonlocal measured
        measured += form == "Q8_0"
        return 2.0 if form == "Q8_0" and measured <= 3 else 1.0

    machine.formula = lucky_at_first
    report = tune(tmp_path, machine, Plan("latency", ("Q8_0",), factors=()))
    assert [race.rows[1].verdict for race in report.races] == ["best", "not faster"]
    assert report.choice is None


@pytest.mark.parametrize(("gain", "stays_on"), [(0.1, True), (0.3, False)])
def test_flash_attention_goes_only_for_a_large_gain(
    tmp_path: Path, gain: float, stays_on: bool
) -> None:
    machine = FakeMachine(lambda _form, config: 1 + gain * (not config.flash_attention))
    report = tune(tmp_path, machine, Plan("latency", ()))
    assert (report.choice is None) == stays_on


def test_beside_a_busy_neighbour_threads_are_not_given_up(tmp_path: Path) -> None:
    machine = FakeMachine(faster)
    machine.load = 0.5
    report = tune(tmp_path, machine, Plan("latency", ()))
    assert report.choice is None
    row = report.races[0].rows[1]
    assert (row.name, row.speed) == ("1 thread", None)
    assert row.verdict == "not tried: others use 50% of the processor"


def test_one_that_crashes_is_out_alone(tmp_path: Path) -> None:
    machine = FakeMachine(faster)
    machine.broken = {"BF16"}
    report = tune(tmp_path, machine)
    row = next(row for row in report.races[0].rows if row.name == "BF16 weights")
    assert row.speed is None
    assert row.verdict == "failed: its process ended (signal 6: BF16 is broken)"
    assert report.choice is not None and report.choice.weights != "BF16"


def test_without_a_reference_answers_stay_as_they_are(tmp_path: Path) -> None:
    machine = FakeMachine(faster)
    machine.full_disk = True
    report = tune(tmp_path, machine)
    assert not [r for r in machine.asked if isinstance(r, Compare)]
    assert report.choice == Candidate(tuning=Tuning(threads=1))


def test_formats_need_memory_and_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine(faster)
    monkeypatch.setattr("server.tune.tuner.available_memory", lambda: 1 << 20)
    report = tune(tmp_path, machine)
    assert not [r for r in machine.asked if isinstance(r, Encode)]
    assert report.races[0].rows[1].verdict.startswith("skipped: too little memory for 0.00 GB")

    monkeypatch.undo()
    monkeypatch.setattr("server.tune.store.ProfileStore.free_bytes", lambda _self: 100)
    report = tune(tmp_path, machine)
    assert report.races[0].rows[1].verdict.startswith("skipped: too little room on the disk")


def test_slow_models_get_shorter_prompts(tmp_path: Path) -> None:
    machine = FakeMachine(lambda _form, _config: 0.1)
    tune(tmp_path, machine)
    assert {r.prompt_tokens for r in machine.asked if isinstance(r, MeasureSpeed)} == {64, 90}


def test_a_model_that_cannot_be_measured(tmp_path: Path) -> None:
    machine = FakeMachine(faster)
    machine.broken = {""}
    with pytest.raises(EngineError, match="tiny cannot be measured: its process ended"):
        tune(tmp_path, machine)
