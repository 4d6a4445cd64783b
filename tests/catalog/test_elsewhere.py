"""Folders as Hugging Face's tools, LM Studio and Ollama leave them. Nothing in them is changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from server.catalog import Elsewhere, ModelStore, Target, inspect, load_catalog, locate
from server.catalog.elsewhere import Found
from server.core.errors import ConfigError
from tests.gguf_files import gguf

MODEL = gguf()
DIGEST = hashlib.sha256(MODEL).hexdigest()
REVISION = "a" * 40


def cached(home: Path, repo: str, *paths: str, revision: str = REVISION) -> Path:
    """As `hf download` leaves it: snapshots of links into blobs that are named by their hashes."""
    folder = home / ".cache/huggingface/hub" / f"models--{repo.replace('/', '--')}"
    blob = folder / "blobs" / DIGEST
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(MODEL)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    for path in paths:
        link = folder / "snapshots" / revision / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return folder


def ollama(root: Path, name: str, *, adapter: bool = False, digest: str = DIGEST) -> None:
    """HOST/NAMESPACE/MODEL/TAG, as `ollama pull` leaves it."""
    manifest = root / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    kinds = ["model", "template", *["adapter"] * adapter]
    layers = [
        {
            "mediaType": f"application/vnd.ollama.image.{kind}",
            "digest": f"sha256:{digest if kind == 'model' else 'b' * 64}",
            "size": len(MODEL),
        }
        for kind in kinds
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": {}, "layers": layers}))
    blob = root / "blobs" / f"sha256-{DIGEST}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(MODEL)


def written(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(MODEL)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def found(home: Path, **environ: str) -> list[Found]:
    system = Path("/usr/share/ollama")
    return [one for one in Elsewhere(environ, home).all() if system not in one.path.parents]


def target(home: Path, word: str, **environ: str) -> Target:
    store = ModelStore(home / "models")
    return locate([word], load_catalog(), store, Elsewhere(environ, home))[0]


def test_nothing_is_there() -> None:
    assert found(Path("/none")) == []


def test_the_hugging_face_cache(home: Path) -> None:
    folder = cached(home, "o/r", "m-Q4_K_M.gguf", "d/m-Q8_0.gguf", "mmproj-F16.gguf", "README.md")
    snapshot = folder / "snapshots" / REVISION
    assert found(home) == [
        Found(
            "o/r:Q4_K_M",
            "hf:o/r/m-Q4_K_M.gguf",
            "Hugging Face",
            (snapshot / "m-Q4_K_M.gguf",),
            DIGEST,
        ),
        Found(
            "o/r:Q8_0",
            "hf:o/r/d/m-Q8_0.gguf",
            "Hugging Face",
            (snapshot / "d/m-Q8_0.gguf",),
            DIGEST,
        ),
    ]
    for word in ("hf:o/r", "hf:o/r:q4_k_m", "hf:o/r/m-Q4_K_M.gguf", "o/r:Q4_K_M"):
        assert target(home, word).path == snapshot / "m-Q4_K_M.gguf"
    assert inspect(target(home, "hf:o/r:Q8_0")).name == "o/r:Q8_0"
    assert target(home, "hf:o/r:Q2_K").missing is not None


def test_the_cache_lies_where_the_environment_says(home: Path, tmp_path: Path) -> None:
    cached(home, "o/r", "m-Q4_K_M.gguf")
    hub = home / ".cache/huggingface/hub"
    for environ in (
        {"HF_HUB_CACHE": str(hub)},
        {"HF_HOME": str(hub.parent)},
        {"XDG_CACHE_HOME": str(home / ".cache")},
        {"LLAMA_CACHE": str(hub)},
    ):
        assert [one.name for one in found(tmp_path / "other", **environ)] == ["o/r:Q4_K_M"]
    assert found(home, HF_HOME=str(tmp_path / "empty")) == []


def test_the_current_revision_comes_before_an_older_one(home: Path) -> None:
    cached(home, "o/r", "m-Q4_K_M.gguf", "old-Q2_K.gguf", revision="0" * 40)
    cached(home, "o/r", "m-Q4_K_M.gguf", revision="f" * 40)
    paths = {one.name: one.path.parent.name for one in found(home)}
    assert paths == {"o/r:Q4_K_M": "f" * 40, "o/r:Q2_K": "0" * 40}


def test_a_link_into_nothing_is_not_a_model(home: Path) -> None:
    folder = cached(home, "o/r", "m-Q4_K_M.gguf")
    (folder / "blobs" / DIGEST).unlink()
    assert found(home) == []
    assert target(home, "hf:o/r").missing is not None


def test_offline_the_nearest_is_taken(home: Path) -> None:
    cached(home, "o/r", "m-Q8_0.gguf")
    assert target(home, "hf:o/r").missing is not None
    assert target(home, "hf:o/r", HF_HUB_OFFLINE="1").name == "o/r:Q8_0"
    assert target(home, "hf:o/r:Q4_K_M", HF_HUB_OFFLINE="1").missing is not None


def test_parts_of_a_split_model_belong_together(home: Path) -> None:
    cached(home, "o/r", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf")
    cached(home, "o/s", "m-Q8_0-00001-of-00002.gguf")
    (one,) = found(home)
    assert (one.name, len(one.files), one.sha256) == ("o/r:Q8_0", 2, None)
    assert target(home, "hf:o/s:Q8_0").missing is not None


def test_lm_studio(home: Path) -> None:
    path = written(home / ".lmstudio/models/o/r/m-Q4_K_M.gguf")
    written(home / ".lmstudio/models/o/r/mmproj-m.gguf")
    old = written(home / ".cache/lm-studio/models/o/old/m.gguf")
    assert [(one.name, one.owner, one.path) for one in found(home)] == [
        ("o/old:m", "LM Studio", old),
        ("o/r:Q4_K_M", "LM Studio", path),
    ]
    assert target(home, "hf:o/r").path == path


def test_lm_studio_keeps_them_where_it_was_told(home: Path, tmp_path: Path) -> None:
    (home / ".lmstudio-home-pointer").write_text(str(tmp_path / "studio"))
    (tmp_path / "studio").mkdir()
    settings = {"downloadsFolder": str(tmp_path / "disk")}
    (tmp_path / "studio/settings.json").write_text(json.dumps(settings))
    written(tmp_path / "disk/o/r/m-Q4_K_M.gguf")
    written(tmp_path / "studio/models/o/s/m-Q4_K_M.gguf")
    assert [one.name for one in found(home)] == ["o/r:Q4_K_M", "o/s:Q4_K_M"]
    (tmp_path / "studio/settings.json").write_text("[broken")
    assert [one.name for one in found(home)] == ["o/s:Q4_K_M"]


def test_ollama(home: Path) -> None:
    root = home / ".ollama/models"
    for name in ("library/llama3.2/1b", "library/llama3.2/latest", "me/mine/v2"):
        ollama(root, f"registry.ollama.ai/{name}")
    ollama(root, "hf.co/o/r/Q4_K_M")
    blob = root / "blobs" / f"sha256-{DIGEST}"
    names = ["hf.co/o/r:Q4_K_M", "llama3.2:1b", "llama3.2:latest", "me/mine:v2"]
    assert [one.name for one in found(home)] == names
    assert found(home)[1] == Found("llama3.2:1b", "ollama:llama3.2:1b", "Ollama", (blob,), DIGEST)
    for word, name in [
        ("ollama:llama3.2:1b", "llama3.2:1b"),
        ("ollama:llama3.2", "llama3.2:latest"),
        ("ollama:me/mine:v2", "me/mine:v2"),
        ("llama3.2:1b", "llama3.2:1b"),
        ("hf:o/r:Q4_K_M", "hf.co/o/r:Q4_K_M"),
    ]:
        model = inspect(target(home, word))
        assert (model.name, model.path) == (name, blob)
    with pytest.raises(ConfigError, match=r"fetch it with `ollama pull llama3.2:3b`"):
        target(home, "ollama:llama3.2:3b")


def test_ollama_keeps_them_where_it_was_told(home: Path, tmp_path: Path) -> None:
    ollama(tmp_path / "big", "registry.ollama.ai/library/m/1b")
    assert [one.name for one in found(home, OLLAMA_MODELS=str(tmp_path / "big"))] == ["m:1b"]


def test_what_ollama_has_and_is_no_plain_model_is_left_out(home: Path) -> None:
    root = home / ".ollama/models"
    ollama(root, "registry.ollama.ai/library/tuned/1b", adapter=True)
    ollama(root, "registry.ollama.ai/library/gone/1b", digest="c" * 64)
    ollama(root, "registry.ollama.ai/library/evil/1b", digest="../../../../etc/passwd")
    ollama(root, "registry.ollama.ai/library/odd/1b")
    (root / "manifests/registry.ollama.ai/library/odd/1b").write_text('{"layers": 3}')
    (root / "manifests/registry.ollama.ai/stray").write_text("{}")
    assert found(home) == []


def test_a_catalogue_model_that_is_elsewhere_is_not_fetched_again(home: Path) -> None:
    spec = load_catalog().find("qwen3-0.6b")
    assert spec is not None
    cached(home, "Qwen/Qwen3-0.6B-GGUF", spec.file)
    model = target(home, "qwen3-0.6b")
    assert (model.name, model.missing) == ("qwen3-0.6b", None)
    assert model.found is not None
    assert inspect(model).sampling == spec.sampling


def test_what_is_ours_comes_first(home: Path) -> None:
    written(home / ".lmstudio/models/o/r/m-Q4_K_M.gguf")
    cached(home, "o/r", "m-Q4_K_M.gguf")
    model = target(home, "hf:o/r")
    assert model.found is not None
    assert model.found.owner == "Hugging Face"
    mine = written(home / "models/llama3.2:1b.gguf")
    ollama(home / ".ollama/models", "registry.ollama.ai/library/llama3.2/1b")
    assert target(home, "llama3.2:1b").path == mine
