"""`ingle pull`, `list`, `show` and `rm`, against a stand-in for Hugging Face."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.catalog.pull import _exclusively
from server.cli.serve import prepare
from server.core.errors import ConfigError
from server.settings import Settings
from tests.catalog.sources import Hub, serve_hub
from tests.catalog.test_elsewhere import cached, ollama
from tests.cli.command import ROOT, ingle, refusal
from tests.gguf_files import gguf, write_gguf

DEFAULT = "smollm2-135m-instruct"
MODEL = gguf() + bytes(200_000)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def folder(home: Path) -> Path:
    path = home / ".local/share/ingle/models"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub(MODEL) as hub:
        hub.repositories = {"o/r": {"m-Q4_K_M.gguf": MODEL}}
        yield hub


def listed(home: Path) -> dict[str, dict[str, object]]:
    done = ingle(home, "list", "--json")
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_list_shows_the_catalogue_and_other_files(home: Path, folder: Path) -> None:
    write_gguf(folder / "mine.gguf")
    write_gguf(folder / "broken.gguf", b"GGUF")
    table = ingle(home, "list").stdout
    assert DEFAULT in table
    assert "Apache-2.0" in table
    assert f"{folder}/broken.gguf is truncated" in table
    assert ingle(home, "ls").stdout == table

    rows = listed(home)
    assert not rows[DEFAULT]["present"]
    assert rows[DEFAULT]["verified"]
    assert rows["nomic-embed-text-v1.5"]["kind"] == "embed"
    assert (rows["mine"]["quantisation"], rows["mine"]["context"]) == ("Q4_1", 2048)
    assert (rows["mine"]["kind"], rows["mine"]["where"]) == ("generate", "ingle")
    assert rows["mine"]["problem"] is None
    assert "truncated" in str(rows["broken"]["problem"])


def test_list_shows_what_other_programs_have(home: Path) -> None:
    cached(home, "o/r", "m-Q4_K_M.gguf")
    cached(home, "Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf")
    ollama(home / ".ollama/models", "registry.ollama.ai/library/tiny/1b")
    rows = listed(home)
    assert (rows["o/r:Q4_K_M"]["where"], rows["tiny:1b"]["where"]) == ("Hugging Face", "Ollama")
    assert rows["tiny:1b"]["reference"] == "ollama:tiny:1b"
    assert rows["qwen3-0.6b"]["where"] == "Hugging Face"
    assert "Qwen/Qwen3-0.6B-GGUF:Q8_0" not in rows, "it is listed once, by its catalogue name"
    line = next(line for line in ingle(home, "list").stdout.splitlines() if "tiny:1b" in line)
    assert line.split()[:3] == ["tiny:1b", "Ollama", "generate"]


def test_a_reference_is_pulled_listed_shown_and_removed(home: Path, folder: Path, hub: Hub) -> None:
    done = ingle(home, "pull", "hf:o/r", HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "fetching o/r:Q4_K_M (207 kB, apache-2.0)"
    assert lines[-2].startswith("r:Q4_K_M: 100 % of 207 kB")
    path = folder / "hf/o/r/m-Q4_K_M.gguf"
    assert lines[-1] == f"o/r:Q4_K_M is here: {path}"

    again = ingle(home, "pull", "hf:o/r:Q4_K_M", HF_HUB_OFFLINE="1")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == f"o/r:Q4_K_M is already here: {path}\n"

    line = next(line for line in ingle(home, "list").stdout.splitlines() if "o/r" in line)
    assert line.split()[:3] == ["o/r:Q4_K_M", "here", "generate"]
    shown = dict(line.split(None, 1) for line in ingle(home, "show", "hf:o/r").stdout.splitlines())
    assert (shown["name"], shown["path"]) == ("o/r:Q4_K_M", str(path))
    assert (shown["licence"], shown["reference"]) == ("apache-2.0", "hf:o/r")
    assert (shown["architecture"], shown["context"]) == ("llama", "2048 tokens")
    assert len(shown["sha256"]) == 64

    assert "add --yes to remove" in refusal(home, "rm", "o/r:Q4_K_M")
    assert path.is_file()
    done = ingle(home, "rm", "--yes", "o/r:Q4_K_M")
    assert (done.returncode, done.stdout) == (0, "o/r:Q4_K_M is removed\n")
    assert list(folder.iterdir()) == [], "not even an empty directory"
    assert refusal(home, "rm", "-y", "hf:o/r").startswith("hf:o/r is not here")
    assert (
        refusal(home, "show", "hf:o/r") == "hf:o/r is not here; fetch it with `ingle pull hf:o/r`"
    )


def test_an_address_is_pulled_and_its_host_listed(home: Path, hub: Hub) -> None:
    word = f"{hub.url}/files/tiny.gguf#sha256={hashlib.sha256(MODEL).hexdigest()}"
    done = ingle(home, "pull", word)
    assert done.returncode == 0, done.stderr
    assert "here, from 127.0.0.1" in ingle(home, "list").stdout
    row = listed(home)["tiny"]
    assert (row["reference"], row["where"]) == (word, "ingle")
    assert ingle(home, "rm", "-y", "tiny").returncode == 0
    assert "tiny" not in listed(home)


def test_show_in_json(home: Path) -> None:
    path = write_gguf(home / "tiny.gguf")
    known = json.loads(ingle(home, "show", str(path), "--json").stdout)
    assert (known["name"], known["path"], known["kind"]) == ("tiny", str(path), "generate")
    assert (known["chat_template"], known["parameters"]) == (True, 4288)
    known = json.loads(ingle(home, "show", "smollm2", "--json").stdout)
    assert (known["name"], known["present"], known["path"]) == (DEFAULT, False, None)
    assert "not here: `ingle pull` fetches it" in ingle(home, "show", "smollm2").stdout
    broken = write_gguf(home / "broken.gguf", b"GGUF")
    done = ingle(home, "show", str(broken))
    assert done.returncode == 2
    assert f"error: {broken} is truncated" in done.stderr


def test_rm_of_files_in_the_models_directory(home: Path, folder: Path) -> None:
    elsewhere = write_gguf(home / "kept.gguf")
    write_gguf(folder / "mine.gguf")
    (folder / "link.gguf").symlink_to(elsewhere)
    (folder / "Qwen3-0.6B-Q8_0.gguf").write_bytes(MODEL)
    assert ingle(home, "rm", "-y", "mine", "link", "qwen3-0.6b").returncode == 0
    assert list(folder.iterdir()) == []
    assert elsewhere.is_file(), "the link went, not what it led to"


def test_rm_of_an_unfinished_download(home: Path, folder: Path) -> None:
    (folder / "Qwen3-0.6B-Q8_0.gguf.part").write_bytes(b"x")
    (folder / "Qwen3-0.6B-Q8_0.gguf.part.etag").write_text('"v1"')
    assert ingle(home, "rm", "-y", "qwen3-0.6b").returncode == 0
    assert list(folder.iterdir()) == []


def test_rm_refuses_what_is_not_ours(home: Path, folder: Path) -> None:
    outside = write_gguf(home / "outside.gguf")
    snapshot = cached(home, "o/r", "m-Q4_K_M.gguf") / "snapshots"
    ollama(home / ".ollama/models", "registry.ollama.ai/library/tiny/1b")
    mine = write_gguf(folder / "mine.gguf")
    assert "is not in the models directory" in refusal(home, "rm", "-y", str(outside))
    assert "o/r:Q4_K_M belongs to Hugging Face" in refusal(home, "rm", "-y", "hf:o/r")
    assert "tiny:1b belongs to Ollama" in refusal(home, "rm", "-y", "mine", "ollama:tiny:1b")
    assert refusal(home, "rm", "-y", DEFAULT).startswith(f"{DEFAULT} is not here")
    assert outside.is_file()
    assert mine.is_file(), "all or nothing"
    assert len(list(snapshot.rglob("*.gguf"))) == 1


def test_rm_refuses_what_is_being_fetched(home: Path, folder: Path) -> None:
    path = write_gguf(folder / "mine.gguf")
    with _exclusively(path, None, lambda _done, _total: None):
        assert "is being fetched by another process" in refusal(home, "rm", "-y", "mine")
    assert path.is_file()


def test_rm_removes_what_tune_made(home: Path, folder: Path) -> None:
    from server.tune import ProfileStore
    from server.tune.machine import this_machine

    path = write_gguf(folder / "mine.gguf")
    other = write_gguf(folder / "other.gguf")
    stores = [ProfileStore(folder, file, this_machine()) for file in (path, other)]
    for store in stores:
        store.directory.mkdir(exist_ok=True)
        store.path.write_text("{}")
        store.weights_path(store.weights_name("q8_0")).write_bytes(MODEL)
    assert ingle(home, "rm", "-y", "mine").returncode == 0
    left = {file.name for file in (folder / "tuned").iterdir() if file.suffix != ".lock"}
    assert left == {stores[1].path.name, stores[1].weights_name("q8_0")}


def test_pull_of_an_unknown_model_is_refused(home: Path) -> None:
    assert refusal(home, "pull", "qwen3-5b").startswith(
        "unknown model qwen3-5b: did you mean qwen3"
    )
    assert "did you mean hf:o/r?" in refusal(home, "pull", "o/r")
    assert "is not a model on Hugging Face; write hf:ORG/REPO" in refusal(home, "pull", "hf:o")


def test_pull_says_why_it_cannot(home: Path, hub: Hub) -> None:
    done = ingle(home, "pull", "qwen3-0.6b", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "error: cannot fetch https://huggingface.co/Qwen"
    )
    done = ingle(home, "pull", "hf:o/r:Q2_K", HF_ENDPOINT=hub.url)
    assert (done.returncode, done.stderr) == (2, "error: o/r has no Q2_K; it has Q4_K_M\n")


def test_a_model_that_is_here_is_not_fetched(home: Path) -> None:
    folder = home / "models"
    folder.mkdir()
    write_gguf(folder / "Qwen3-0.6B-Q8_0.gguf")
    done = ingle(home, "pull", "qwen3-0.6b", "--models-dir", "models", HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "qwen3-0.6b is already here" in done.stdout


@pytest.mark.parametrize("command", ["pull", "show"])
def test_a_path_where_nothing_is_is_told(home: Path, command: str) -> None:
    assert refusal(home, command, "./none.gguf").startswith(f"{home}/none.gguf does not exist")


def test_ctrl_c_keeps_what_came(home: Path, folder: Path, hub: Hub) -> None:
    hub.drips = 0.01
    environ = {"PYTHONPATH": ROOT, "HOME": str(home), "HF_ENDPOINT": hub.url}
    command = [sys.executable, "-m", "server", "pull", "hf:o/r"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        part = folder / "hf/o/r/m-Q4_K_M.gguf.part"
        hub.storage_asked.wait(30)
        while not (part.is_file() and part.stat().st_size > 3):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped; what came is kept" in told
    assert "Traceback" not in told
    size = part.stat().st_size
    hub.drips = None
    hub.ranges.clear()
    assert ingle(home, "pull", "hf:o/r", HF_ENDPOINT=hub.url).returncode == 0
    assert hub.ranges[-1] == f"bytes={size}-"
    assert part.with_suffix("").read_bytes() == MODEL


def test_serve_fetches_a_reference_and_checks_names_then(
    home: Path, folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    (model,) = prepare(Settings(models=("hf:o/r",), models_dir=folder))
    assert (model.name, model.path) == ("o/r:Q4_K_M", folder / "hf/o/r/m-Q4_K_M.gguf")
    assert prepare(Settings(models=("o/r:Q4_K_M",), models_dir=folder)) == [model]
    hub.repositories["p/r"] = hub.repositories["o/r"]
    with pytest.raises(ConfigError, match="p/r:Q4_K_M is given twice"):
        prepare(Settings(models=("hf:p/r", "hf:p/r:Q4_K_M"), models_dir=folder))
