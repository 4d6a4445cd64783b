from __future__ import annotations

import json
import logging
from pathlib import Path

import msgspec
import pytest

from server.catalog import ResolvedModel
from server.core.config import Tuning
from server.core.errors import ConfigError
from server.tune.keeping import keep
from server.tune.machine import Machine, cpu_flags, cpu_info, this_machine
from server.tune.profile import Profile, Provenance, edges, sha256
from server.tune.report import Report
from server.tune.store import ProfileStore
from server.tune.tuner import Plan, Tuner
from tests.gguf_files import PLAIN, STRING, gguf
from tests.tune.fake_machine import MACHINE, FakeMachine, model_in, store_for

OTHER = msgspec.structs.replace(MACHINE, processor="Other CPU")
NEWER = msgspec.structs.replace(MACHINE, engine="llama-cpp-python 1")


def tuned(folder: Path, model: ResolvedModel, machine: Machine = MACHINE) -> Profile:
    """A profile with Q8_0 weights and one thread."""
    profile, _ = tune(
        folder, model, FakeMachine(lambda f, c: 1 + (f != "") + (c.threads == 1)), machine
    )
    assert profile is not None
    return profile


def tune(
    folder: Path, model: ResolvedModel, fake: FakeMachine, machine: Machine = MACHINE
) -> tuple[Profile | None, Report]:
    store = store_for(folder, model, machine)
    plan = Plan("throughput", ("Q8_0",), factors=("threads",), rounds=1)
    with store.exclusively():
        report = Tuner(model, store, plan, prober=fake, progress=lambda *_: None).run()
        return keep(report, model.path, store), report


def names(store: ProfileStore) -> set[str]:
    return {path.name for path in store.directory.iterdir() if not path.name.startswith(".")}


def test_a_profile_is_found_again(tmp_path: Path) -> None:
    model = model_in(tmp_path)
    written = tuned(tmp_path, model)
    store = store_for(tmp_path, model)
    found = store.find("tiny")
    assert found == written
    assert found.tuning == Tuning(threads=1)
    assert found.gain == pytest.approx(2)
    served = store.apply(found, model)
    assert served.name == "tiny"
    assert served.path == store.weights_path(found.weights.name)  # type: ignore[union-attr]
    assert found.summary() == f"Q8_0 weights, 1 thread (ingle tune, {found.created[:10]})"
    assert found.summary(threads=4) == f"Q8_0 weights (ingle tune, {found.created[:10]})"


def test_provenance(tmp_path: Path) -> None:
    model = model_in(tmp_path)
    written = tuned(tmp_path, model)
    store = store_for(tmp_path, model)
    assert written.weights is not None
    path = store.weights_path(written.weights.name)
    told = msgspec.json.decode(path.with_name(f"{path.name}.json").read_bytes(), type=Provenance)
    assert told.source.name == "tiny.gguf"
    assert told.source.sha256 == sha256(model.path)
    assert told.sha256 == sha256(path)
    assert (told.format, told.size) == ("Q8_0", path.stat().st_size)
    assert told.quality.divergence == 0.004
    assert told.engine == "llama-cpp-python 0 (llama.cpp test)"


@pytest.mark.parametrize("machine", [OTHER, NEWER, msgspec.structs.replace(MACHINE, cores=8)])
def test_a_profile_of_another_machine_is_told_and_ignored(
    tmp_path: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_in(tmp_path)
    tuned(tmp_path, model)
    assert store_for(tmp_path, model, machine).find("tiny") is None
    assert len(caplog.records) == 1
    assert "not for this machine" in caplog.text


def test_a_profile_copied_under_another_machines_name_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_in(tmp_path)
    tuned(tmp_path, model)
    here, there = store_for(tmp_path, model), store_for(tmp_path, model, OTHER)
    here.path.rename(there.path)
    assert there.find("tiny") is None
    (record,) = caplog.records
    assert record.reason == "it was made on another machine"


def test_another_file_of_the_same_name_is_not_tuned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuned(tmp_path, model_in(tmp_path))
    other = model_in(tmp_path, content=gguf(meta=PLAIN | {"general.name": (STRING, "Else")}))
    assert store_for(tmp_path, other).find("tiny") is None
    assert not caplog.records


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b'{"version": 2}',
        '{"tuning": {"threads": 100000}}',
        '{"tuning": {"micro_batch": 0}}',
        '{"tuning": {"kv_type": "q1"}}',
        '{"weights": {"name": "../../etc/passwd"}}',
        '{"goal": "fun"}',
        '{"extra": 1}',
        '{"gain": NaN}',
    ],
)
def test_a_broken_profile_is_one_warning(
    tmp_path: Path, content: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_in(tmp_path)
    tuned(tmp_path, model)
    store = store_for(tmp_path, model)
    if isinstance(content, str):
        whole = json.loads(store.path.read_bytes())
        for key, change in json.loads(content).items():
            whole[key] = whole[key] | change if isinstance(change, dict) else change
        content = json.dumps(whole).encode()
    store.path.write_bytes(content)
    assert store.find("tiny") is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "\n" not in record.reason
    assert record.path == str(store.path)


@pytest.mark.parametrize("damage", ["missing", "cut", "other size"])
def test_weights_that_are_not_what_was_measured_are_not_served(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_in(tmp_path)
    weights = tuned(tmp_path, model).weights
    assert weights is not None
    store = store_for(tmp_path, model)
    path = store.weights_path(weights.name)
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    else:
        path.write_bytes(path.read_bytes() + bytes(32))
    assert store.find("tiny") is None
    assert len(caplog.records) == 1


def test_a_directory_in_its_place_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_for(tmp_path, model_in(tmp_path))
    store.path.mkdir(parents=True)
    assert store.find("tiny") is None
    assert len(caplog.records) == 1


def test_an_untuned_model_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert store_for(tmp_path, model_in(tmp_path)).find("tiny") is None
    assert not caplog.records
    assert not (tmp_path / "tuned").exists(), "looking leaves no trace"


def test_revert_removes_the_profile_and_its_weights(tmp_path: Path) -> None:
    model = model_in(tmp_path)
    tuned(tmp_path, model)
    tuned(tmp_path, model, NEWER)
    store = store_for(tmp_path, model)
    store.path.write_text("broken")
    assert len(names(store)) == 4
    with store.exclusively():
        profiles = store.revertible()
        going = {*profiles, *store.unnamed_without(profiles)}
        assert set(store.revert(profiles)) == going
    assert names(store) == set()
    assert model.path.exists()


def test_weights_that_another_machine_uses_stay(tmp_path: Path) -> None:
    model = model_in(tmp_path)
    tuned(tmp_path, model)
    theirs = tuned(tmp_path, model, OTHER)
    store = store_for(tmp_path, model)
    with store.exclusively():
        profiles = store.revertible()
        assert profiles == [store.path]
        assert store.unnamed_without(profiles) == []
        store.revert(profiles)
    assert store_for(tmp_path, model, OTHER).find("tiny") == theirs


def test_a_similar_name_is_another_model(tmp_path: Path) -> None:
    plain, brackets = model_in(tmp_path, "m"), model_in(tmp_path, "m[1]")
    tuned(tmp_path, plain)
    tuned(tmp_path, brackets)
    store = store_for(tmp_path, brackets)
    with store.exclusively():
        store.revert(store.revertible())
    assert store_for(tmp_path, plain).find("m") is not None
    assert store.find("m[1]") is None


def test_a_new_tune_replaces_the_old_one(tmp_path: Path) -> None:
    model = model_in(tmp_path)
    tuned(tmp_path, model)
    store = store_for(tmp_path, model)
    only_threads = FakeMachine(lambda _f, c: 2 if c.threads == 1 else 1)
    profile, _ = tune(tmp_path, model, only_threads)
    assert profile is not None and profile.weights is None
    assert names(store) == {store.path.name}

    profile, _ = tune(tmp_path, model, FakeMachine(lambda *_: 1))
    assert profile is None
    assert names(store) == set()


def test_one_tune_at_a_time_and_leftovers_go(tmp_path: Path) -> None:
    model = model_in(tmp_path)
    store = store_for(tmp_path, model)
    store.directory.mkdir()
    store.part("Q8_0").write_bytes(b"killed")
    with store.exclusively():
        assert not store.part("Q8_0").exists()
        with pytest.raises(ConfigError, match="being tuned already"):
            store_for(tmp_path, model).exclusively().__enter__()


def test_edges_change_with_head_tail_and_size(tmp_path: Path) -> None:
    path = tmp_path / "f"
    seen = set()
    for content in (b"", b"a", b"a" * 3_000_000, b"b" + b"a" * 2_999_999, b"a" * 2_999_999 + b"b"):
        path.write_bytes(content)
        seen.add(edges(path))
    assert len(seen) == 5


def test_this_machine_is_itself_and_names_its_flags(tmp_path: Path) -> None:
    assert this_machine() == this_machine()
    assert len(this_machine().key) == 8
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: A\nflags\t\t: avx2 fma\n\nmodel name\t: B\n")
    assert cpu_info(info)["model name"] == "A"
    assert cpu_flags(cpu_info(info)) == {"avx2", "fma"}
    assert cpu_info(tmp_path / "none") == {}
