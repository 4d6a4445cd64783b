"""Models that lie in parts, or in another program's folder, through the command and llama.cpp."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import gguf
import openai
import pytest

from server.catalog.split import read_model

from .conftest import serving

pytestmark = pytest.mark.model

QUESTION = "Name the capital of France."


@pytest.fixture(scope="module")
def answer(server_url: str, model_path: Path) -> str:
    return ask(server_url, model_path.name.removesuffix(".gguf"))


def ask(url: str, model: str) -> str:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        reply = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": QUESTION}],
            max_completion_tokens=16,
            temperature=0,
        )
    return reply.choices[0].message.content or ""


def split(path: Path, folder: Path, tensors: int) -> list[Path]:
    """The model in parts of so many tensors each."""
    folder.mkdir(parents=True)
    reader = gguf.GGUFReader(path)
    architecture = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(folder / "m-Q4_1.gguf", architecture, split_max_tensors=tensors)
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.iterdir())


def test_a_split_model_of_lm_studio_is_served_whole(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    parts = split(model_path, tmp_path / ".lmstudio/models/o/r", 100)
    assert len(parts) > 2
    assert read_model(parts[0]).parameters == read_model(model_path).parameters
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HF_HOME", raising=False)
    with serving(Path("hf:o/r:Q4_1"), "--slots", "1", "--ctx", "512") as url:
        assert ask(url, "o/r:Q4_1") == answer
    parts[1].write_bytes(parts[1].read_bytes()[:-1000])
    with pytest.raises(AssertionError), serving(Path("hf:o/r:Q4_1")):
        pass


def test_a_model_of_ollama_is_served_by_its_name_there(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    with model_path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / f"sha256-{digest}").symlink_to(model_path)
    manifest = tmp_path / "manifests/registry.ollama.ai/library/smollm2/135m"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    with serving(Path("ollama:smollm2:135m"), "--slots", "1", "--ctx", "512") as url:
        assert ask(url, "smollm2:135m") == answer
