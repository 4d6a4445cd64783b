"""`ingle tune` on a made-up machine, and what `ingle serve` takes from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.catalog import ResolvedModel
from server.cli import app
from server.cli.banner import banner
from server.cli.serve import apply_profiles
from server.cli.stages import Lines
from server.core.errors import ConfigError
from server.lineup import Lineup
from server.settings import Settings
from tests.cli.test_banner import INFO, model
from tests.gguf_files import PLAIN, STRING, gguf, write_gguf
from tests.tune.fake_machine import FakeMachine, Formula, model_in


def q8_is_faster(form: str, _config: object) -> float:
    return 1.5 if form == "Q8_0" else 1.0


@pytest.fixture
def tiny(tmp_path: Path) -> ResolvedModel:
    return model_in(tmp_path)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeMachine:
    machine = FakeMachine(q8_is_faster)
    monkeypatch.setattr("server.tune.prober.Prober", lambda: machine)
    monkeypatch.chdir(tmp_path)
    return machine


def ingle(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def tune(model: ResolvedModel, *words: str) -> Result:
    return ingle("tune", str(model.path), "--models-dir", str(model.path.parent), *words)


def served(model: ResolvedModel) -> tuple[dict[str, str], list[ResolvedModel]]:
    profiles, models = apply_profiles(Settings(models_dir=model.path.parent), [model])
    return {name: profile.summary() for name, profile in profiles.items()}, models


@pytest.mark.usefixtures("made_up")
def test_tune_serve_revert(tiny: ResolvedModel) -> None:
    assert served(tiny) == ({}, [tiny])
    done = tune(tiny, "--for", "latency", "--weights", "q8_0")
    assert done.exit_code == 0, done.output
    assert "Chosen: Q8_0 weights; 1.50 × as fast for one user's answer" in done.stdout
    assert "mean KL divergence 0.0040 nats, same first choice 96.0%" in done.stdout
    assert f"`ingle tune {tiny.path} --revert` removes it." in done.stdout

    summaries, models = served(tiny)
    assert summaries["tiny"].startswith("Q8_0 weights, ")
    assert models[0].name == "tiny"
    assert models[0].path.parent == tiny.path.parent / "tuned"

    refused = tune(tiny, "--revert")
    assert isinstance(refused.exception, ConfigError)
    assert "add --yes" in refused.exception.message
    assert served(tiny) == (summaries, models)

    done = tune(tiny, "--revert", "--yes")
    assert len(done.stdout.splitlines()) == 2
    assert served(tiny) == ({}, [tiny])
    assert tune(tiny, "--revert", "--yes").stdout == "tiny is not tuned on this machine\n"


@pytest.mark.usefixtures("made_up")
def test_json_is_all_there_is_on_stdout(tiny: ResolvedModel) -> None:
    report = json.loads(tune(tiny, "--json", "--weights", "Q8_0", "--rounds", "2").stdout)
    assert report["choice"]["weights"] == "Q8_0"
    assert report["gain"] == pytest.approx(0.5)
    assert Path(report["profile"]).exists()
    assert Path(report["weights"]).exists()
    removed = json.loads(tune(tiny, "--json", "--revert", "--yes").stdout)["removed"]
    assert set(removed) == {report["profile"], report["weights"]}


@pytest.mark.parametrize(
    ("formula", "weights"), [(lambda _form, _config: 1.0, "Q8_0"), (q8_is_faster, "none")]
)
def test_tuning_that_does_not_pay_says_so(
    tiny: ResolvedModel, made_up: FakeMachine, formula: Formula, weights: str
) -> None:
    made_up.formula = formula
    done = tune(tiny, "--weights", weights)
    assert "Kept as shipped: nothing tried makes eight answers at once at least 5 %" in done.stdout
    assert "ingle serve" not in done.stdout
    assert served(tiny) == ({}, [tiny])


@pytest.mark.usefixtures("made_up")
def test_unknown_formats_are_refused(tiny: ResolvedModel) -> None:
    refused = tune(tiny, "--weights", "Q8_0,Q9")
    assert isinstance(refused.exception, ConfigError)
    assert refused.exception.message.startswith("unknown format Q9; --weights takes none, Q8_0")


def test_a_model_without_text_has_nothing_to_tune(tmp_path: Path) -> None:
    meta = PLAIN | {"general.architecture": (STRING, "bert")}
    path = write_gguf(tmp_path / "minilm.gguf", gguf(meta=meta))
    refused = ingle("tune", str(path), "--models-dir", str(tmp_path))
    assert isinstance(refused.exception, ConfigError)
    assert "generates no text" in refused.exception.message


def test_the_users_threads_win(tiny: ResolvedModel, made_up: FakeMachine) -> None:
    made_up.formula = lambda _form, config: 2.0 if config.threads == 1 else 1.0
    tune(tiny, "--weights", "none")
    profiles, _ = apply_profiles(Settings(models_dir=tiny.path.parent), [tiny])
    tunings = {"tiny": profiles["tiny"].tuning}
    for settings, threads in ((Settings(), 1), (Settings(threads=3), 3)):
        serving = Lineup(settings, ("tiny",), (tiny,), tunings).serving(1 << 30)
        assert serving.models["tiny"].engine.model.threads == threads


def test_the_banner_tells_of_the_profile() -> None:
    text = banner(
        Settings(), [model("a"), model("b")], {"a": INFO, "b": INFO}, 0, tuned={"b": "1 thread (…)"}
    )
    assert text.count("  tuned     1 thread (…)\n") == 1
    assert text.index("b is ready") < text.index("  tuned ")


def test_a_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("m", sys.stdout)
    for done in range(3):
        lines("weights", done, 2)
    lines("threads", 0, 2)
    assert capsys.readouterr().out == "m: weights\nm: threads\n"
