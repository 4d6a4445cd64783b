"""`ingle doctor`: each finding from what it reads, and the command as a whole."""

from __future__ import annotations

import json
import resource
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from server.catalog import GGUFHeader
from server.cli.doctor import engine, machine, places
from server.cli.doctor.finding import Finding, refused
from server.cli.doctor.fitting import fit
from server.core.config import Tuning
from server.core.errors import ConfigError
from server.llama.about import About, about, features_of
from server.llama.shape import COMPUTE_RESERVE
from server.settings import Loaded, Origin, Settings
from tests.cli.command import ingle
from tests.cli.fake_server import FakeServer
from tests.gguf_files import gguf, write_gguf

GB = 1 << 30


def loaded(*from_file: str, file: Path | None = None, **values: Any) -> Loaded:
    origins = dict.fromkeys(Settings.model_fields, Origin("default"))
    origins |= {key: Origin("file", str(file)) for key in from_file}
    return Loaded(Settings(**values), origins, file)


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def is_complete(finding: Finding) -> bool:
    """One line, and a remedy for what is not ok."""
    return "\n" not in finding.message and (finding.level == "ok") == (finding.remedy is None)


@pytest.mark.parametrize(
    ("threads", "level", "told"),
    [(None, "ok", "4, one"), (4, "ok", "4, one"), (8, "warn", "8 on 4"), (2, "warn", "2 of 4")],
)
def test_threads_against_cores(threads: int | None, level: str, told: str) -> None:
    found = machine.threads_finding(threads, 4)
    assert (found.level, is_complete(found)) == (level, True)
    assert found.message.startswith(told)


@pytest.mark.parametrize(
    ("driver", "governor", "preference", "level"),
    [
        ("acpi-cpufreq", "powersave", "", "warn"),
        ("acpi-cpufreq", "schedutil", "", "ok"),
        ("intel_pstate", "powersave", "balance_performance", "ok"),
        ("amd-pstate-epp", "powersave", "power", "warn"),
    ],
)
def test_the_governor(
    tmp_path: Path, driver: str, governor: str, preference: str, level: str
) -> None:
    folder = tmp_path / "cpu0/cpufreq"
    put(folder / "scaling_governor", f"{governor}\n")
    put(folder / "scaling_driver", f"{driver}\n")
    put(folder / "energy_performance_preference", f"{preference}\n")
    found = machine.governor(tmp_path)
    assert (found.level, is_complete(found)) == (level, True)
    assert machine.governor(tmp_path / "none").level == "ok"


def test_a_share_of_a_processor_is_little(tmp_path: Path) -> None:
    put(tmp_path / "cpu.max", "50000 100000")
    found = machine.processor(tmp_path)
    assert found.level == "warn"
    assert "but for 0.5 of the time only" in found.message


def test_what_is_swapped_out() -> None:
    assert machine.swap(0, 16 * GB).message == "nothing is swapped out"
    assert machine.swap(GB // 2, 16 * GB).level == "ok"
    assert machine.swap(2 * GB, 16 * GB).level == "warn"


def test_instructions_built_and_there() -> None:
    built = About(frozenset({"AVX2", "FMA", "OPENMP"}), gpu=False)
    assert engine.instructions(built, {"avx2", "fma"}).level == "ok"
    found = engine.instructions(built, {"avx2", "fma", "avx512f"})
    assert (found.level, found.message) == ("warn", "llama.cpp was built without AVX512")
    assert found.remedy is not None and "--no-binary llama-cpp-python" in found.remedy
    found = engine.instructions(built, {"fma", "sse"})
    assert found.level == "fail"
    assert found.message == "llama.cpp was built with AVX2, which this processor has not"
    assert engine.instructions(built, frozenset()).level == "ok", "nobody tells what it has"


def test_a_llama_cpp_that_does_not_run() -> None:
    found = engine.instructions(-signal.SIGILL, {"avx2"})
    assert (found.level, is_complete(found)) == ("fail", True)
    assert "built for another processor" in found.message
    assert engine.instructions(1, {"avx2"}).message == "llama.cpp cannot be loaded"


def test_a_gpu_that_is_not_used() -> None:
    without = About(frozenset(), gpu=False)
    found = engine.gpu(without, ["/dev/nvidia0"])
    assert found.level == "warn"
    assert found.remedy is not None and "-DGGML_CUDA=on" in found.remedy
    assert engine.gpu(without, []).level == "ok"
    assert engine.gpu(About(frozenset(), gpu=True), ["/dev/kfd"]).level == "ok"


def test_what_llama_cpp_says_of_itself() -> None:
    told = "CPU : SSE3 = 1 | AVX = 0 | AVX2 = 1 | SVE_CNT = 16 | REPACK = 1 | "
    assert features_of(told) == ["SSE3", "AVX2", "SVE_CNT", "REPACK"]
    built = about()
    assert isinstance(built, About), "in a process of its own"
    assert built.features


def test_a_model_against_the_memory() -> None:
    header = GGUFHeader(
        version=3,
        architecture="llama",
        name=None,
        quantisation="Q4_K",
        context_length=32_768,
        parameters=10**9,
        size=GB,
        chat_template=True,
        kv_width=16_384,
    )
    roomy = fit("m", header, 32 * GB)
    assert (roomy.fits, roomy.slots, roomy.context) == (True, 8, 8192)
    assert roomy.total == GB + COMPUTE_RESERVE + 8 * 8192 * 16_384 * 2
    small = fit("m", header, 2 * GB)
    assert small.fits and small.total < 2 * GB
    assert (small.slots or 0) * (small.context or 0) < 8 * 8192
    half = fit("m", header, 2 * GB, tuning=Tuning(kv_type="q8_0"))
    assert (half.slots, half.context) == (small.slots, small.context)
    assert half.total < small.total
    none = fit("m", header, GB + GB // 2)
    assert not none.fits and none.total > GB + COMPUTE_RESERVE
    assert not fit("m", header, 32 * GB, context=32_768, slots=256).fits
    with pytest.raises(ConfigError, match="trained for"):
        fit("m", header, 32 * GB, context=65_536)


def test_the_disk_that_models_lie_on(tmp_path: Path) -> None:
    models = tmp_path / "some where/models"
    models.mkdir(parents=True)
    spelled = str(models).replace(" ", "\\040")
    mounts = put(
        tmp_path / "mounts",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"2 1 0:50 / {spelled} rw shared:1 - nfs4 box:/models rw\n",
    )
    disk, part = tmp_path / "sys/block/sda", tmp_path / "sys/block/sda/sda1"
    part.mkdir(parents=True)
    rotational = put(disk / "queue/rotational", "1\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/8:1").symlink_to(part)

    def found(path: Path) -> tuple[str, str]:
        told = places.disk(path, mounts, tmp_path / "dev")
        assert is_complete(told)
        return told.level, told.message

    assert found(models / "hf") == ("warn", "models come over the network (nfs4): loading is slow")
    assert found(tmp_path) == ("warn", "models lie on a spinning disk: loading is slow")
    rotational.write_text("0\n")
    assert found(tmp_path) == ("ok", "local (ext4)")
    assert places.disk(tmp_path, tmp_path / "none", tmp_path).level == "ok"


def test_the_models_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert places.models_dir(tmp_path / "not/yet").level == "ok"
    assert places.models_dir(put(tmp_path / "file", "")).level == "fail"
    monkeypatch.setattr(places.os, "access", lambda *_: False)
    found = places.models_dir(tmp_path)
    assert (found.level, is_complete(found)) == ("warn", True)
    assert "cannot be written to" in found.message


def test_the_directory_of_prefixes(tmp_path: Path) -> None:
    folder = tmp_path / "prefixes"
    assert places.prefixes(folder, 1 << 20).level == "ok"
    folder.mkdir(mode=0o700)
    put(folder / "a.state", "x" * 2000)
    assert places.prefixes(folder, 1 << 20).message.endswith("2 kB of 1.05 MB taken")
    assert "are free" in places.prefixes(folder, 1 << 60).message
    folder.chmod(0o755)
    assert places.prefixes(folder, 1 << 20).remedy == f"chmod 700 {folder}"
    assert "cannot be written" in places.prefixes(put(tmp_path / "file", ""), 1 << 20).message
    kept = loaded(disk_cache_mb=1, cache_dir=folder, models_dir=tmp_path)
    assert "prefix cache" in [found.check for found in places.place_findings(kept)]


def test_keys_that_others_can_read(tmp_path: Path) -> None:
    keys, file = put(tmp_path / "keys", "secret\n"), put(tmp_path / "ingle.toml", "")
    settings = loaded("admin_key", file=file, api_key_file=keys, admin_key="k")
    for path in (keys, file):
        path.chmod(0o644)
    found = list(places.key_findings(settings))
    assert [one.level for one in found] == ["warn", "warn"]
    assert [one.remedy for one in found] == [f"chmod o-r {keys}", f"chmod o-r {file}"]
    for path in (keys, file):
        path.chmod(0o640)
    assert {one.level for one in places.key_findings(settings)} == {"ok"}
    file.chmod(0o644)
    settings = loaded(file=file)
    assert {one.level for one in places.key_findings(settings)} == {"ok"}, "there is no key in it"
    (found_wrong,) = places.key_findings(loaded(api_key_file=tmp_path))
    assert found_wrong.level == "fail"


def test_what_was_typed_and_others_can_read(tmp_path: Path) -> None:
    file = put(tmp_path / "history", "")
    file.chmod(0o644)
    assert places.history(tmp_path).remedy == f"chmod 600 {file}"
    file.chmod(0o600)
    assert places.history(tmp_path).level == "ok"
    assert places.history(tmp_path / "none").level == "ok"


def test_open_files() -> None:
    assert places.open_files(1024, 1 << 20).level == "ok", "the server raises its own limit"
    assert places.open_files(1024, resource.RLIM_INFINITY).level == "ok"
    found = places.open_files(1024, 1024)
    assert (found.level, found.message) == ("warn", "at most 1024: 896 connections at once")


def test_a_port_is_free_or_ours_or_taken(fake: FakeServer) -> None:
    port = int(fake.url.rsplit(":", 1)[1])
    assert places.port(loaded(port=port)).message == f"{port}: an Ingle server runs there"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = int(other.getsockname()[1])
        found = places.port(loaded(port=taken))
        assert (found.level, is_complete(found)) == ("fail", True)
        assert found.message.startswith(f"port {taken} is in use")
    assert places.port(loaded(port=taken)).message == f"{taken} is free"


def test_a_refusal_is_parted_from_its_remedy() -> None:
    found = refused("x", ConfigError("it is wrong; change it to right"))
    assert (found.message, found.remedy) == ("it is wrong", "change it to right")
    assert is_complete(refused("x", ConfigError("it is wrong")))


def findings(told: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in json.loads(told)["findings"]:
        found.setdefault((one["area"], one["check"]), []).append(one)
    return found


def test_the_command_on_this_machine(home: Path) -> None:
    folder = home / ".local/share/ingle/models"
    folder.mkdir(parents=True)
    write_gguf(folder / "mine.gguf")
    port = str(free_port())
    done = ingle(home, "doctor", "--json", INGLE_PORT=port, INGLE_MODELS="mine")
    assert done.stderr == ""
    found = findings(done.stdout)
    areas = {area for area, _ in found}
    assert areas == {"settings", "machine", "llama.cpp", "models"}
    assert found["settings", "port"][0]["message"] == f"{port} is free"
    assert found["models", "mine"][0]["message"].startswith("it fits: 8 × 2048 tokens")
    failed = [one for ones in found.values() for one in ones if one["level"] == "fail"]
    assert done.returncode == bool(failed)
    models = {model["name"]: model for model in json.loads(done.stdout)["models"]}
    assert (models["mine"]["present"], models["mine"]["slots"]) == (True, 8)
    assert models["qwen3-4b"]["present"] is False and models["qwen3-4b"]["slots"] is None
    text = ingle(home, "doctor", INGLE_PORT=port, INGLE_MODELS="mine").stdout
    assert "\nmachine\n" in text and "what fits now" in text and "\n  mine " in text


def test_what_would_keep_the_server_down_fails(home: Path) -> None:
    done = ingle(home, "doctor", "--json", INGLE_HOST="0.0.0.0", INGLE_MODELS="smolm2")
    assert done.returncode == 1
    found = findings(done.stdout)
    assert found["settings", "address"][0]["level"] == "fail"
    assert found["models", "models to serve"][0]["message"].startswith("unknown model smolm2")
    (home / "ingle.toml").write_text("prot = 1")
    done = ingle(home, "doctor", "--json")
    assert done.returncode == 1
    (wrong,) = findings(done.stdout)["settings", "settings"]
    assert wrong["message"].startswith("unknown key prot in ingle.toml")


def test_a_served_model_that_is_damaged_missing_or_too_long(home: Path) -> None:
    broken = write_gguf(home / "broken.gguf", gguf()[:-100])
    sound = write_gguf(home / "sound.gguf")
    models = f"{broken},{sound},qwen3-4b"
    done = ingle(home, "doctor", "--json", INGLE_MODELS=models, INGLE_CTX="4096")
    found = findings(done.stdout)
    assert done.returncode == 1
    assert "is truncated" in found["models", "broken"][0]["message"]
    assert "trained for" in found["models", "sound"][0]["message"]
    (missing,) = found["models", "qwen3-4b"]
    assert (missing["level"], missing["remedy"]) == ("warn", "ingle pull qwen3-4b")


def test_a_profile_that_cannot_be_used_is_told_of(home: Path) -> None:
    from server.tune import ProfileStore
    from server.tune.machine import this_machine

    path = write_gguf(home / "mine.gguf")
    store = ProfileStore(home / ".local/share/ingle/models", path, this_machine())
    put(store.path, "{}")
    found = findings(ingle(home, "doctor", "--json", INGLE_MODELS=str(path)).stdout)
    told = [one["message"] for one in found["models", "mine"]]
    assert any(message.startswith("the tuned profile is ignored: ") for message in told)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
