"""Tuning the default model: weights re-encoded, compared, served and removed again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from server.catalog import Target, inspect
from server.core.config import RunnerConfig, Tuning
from server.llama.probe import Compare, KeepReference, MeasureSpeed, Quality, Speed
from server.tune import ProfileStore
from server.tune.candidates import Candidate
from server.tune.keeping import keep
from server.tune.machine import this_machine
from server.tune.prober import Prober
from server.tune.tuner import Plan, Tuner
from tests.model.conftest import _free_port, _wait_until_ready

pytestmark = pytest.mark.model


def test_weights_are_reencoded_served_and_removed(model_path: Path, tmp_path: Path) -> None:
    model = inspect(Target("m", model_path))
    store = ProfileStore(tmp_path, model_path, this_machine())
    plan = Plan("throughput", ("Q8_0",), factors=(), rounds=1, decode_steps=6)
    prober = Prober()
    try:
        with store.exclusively():
            run = Tuner(model, store, plan, prober=prober, progress=lambda *_: None).run()
            row = next(r for r in run.races[0].rows if r.candidate.weights == "Q8_0")
            assert row.quality is not None and row.speed is not None
            assert row.quality.divergence < 0.02
            assert row.quality.agreement > 0.9
            assert row.speed.weights > run.before.weights
            # Which is faster depends on the machine; that the choice is served does not.
            chosen = msgspec.structs.replace(run, choice=Candidate("Q8_0"), quality=row.quality)
            profile = keep(chosen, model_path, store)
    finally:
        prober.close()
    assert profile is not None and profile.weights is not None
    weights = store.weights_path(profile.weights.name)
    told = json.loads(weights.with_name(f"{weights.name}.json").read_text())
    assert told["source"]["name"] == model_path.name
    assert told["format"] == "Q8_0"

    banner = _serve(model_path, tmp_path)
    assert "  tuned     Q8_0 weights, " in banner
    assert f'"model": "{model_path.stem}"' in banner
    assert " Q8_0, " in banner

    command = [sys.executable, "-m", "server", "tune", str(model_path), "--revert", "--yes"]
    subprocess.run([*command, "--models-dir", str(tmp_path)], check=True, timeout=30)
    assert not weights.exists()
    assert store.find("m") is None
    assert "tuned" not in _serve(model_path, tmp_path)


def test_every_setting_computes_the_same_model(model_path: Path, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    prober = Prober()
    usual = RunnerConfig(path=str(model_path))
    try:
        prober.ask(KeepReference(usual, kept))
        for tuning in (
            Tuning(),
            Tuning(threads=1, micro_batch=32),
            Tuning(flash_attention=False),
            Tuning(kv_type="q8_0"),
        ):
            config = Candidate(tuning=tuning).config(str(model_path), -1)
            quality = prober.ask(Compare(config, kept))
            assert isinstance(quality, Quality)
            assert quality.divergence < 0.02, tuning
            assert quality.agreement > 0.9, tuning
        q8 = RunnerConfig(path=str(model_path), kv_type="q8_0")
        full, half = (prober.ask(_short(config)) for config in (usual, q8))
    finally:
        prober.close()
    assert isinstance(full, Speed) and isinstance(half, Speed)
    assert min(full.prefill, full.decode_one, full.decode_many) > 0
    assert half.kv_token < 0.6 * full.kv_token


def _short(config: RunnerConfig) -> MeasureSpeed:
    return MeasureSpeed(config, prompt_tokens=32, decode_steps=2, streams=2)


def _serve(model: Path, models_dir: Path) -> str:
    """The banner after its first line, of a server that is then stopped."""
    command = [sys.executable, "-m", "server", "serve", str(model), "--models-dir", str(models_dir)]
    command += ["--port", str(_free_port()), "--slots", "2", "--ctx", "512"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            _wait_until_ready(process)
            process.terminate()
            assert process.stdout is not None
            return process.stdout.read()
        finally:
            process.kill()
