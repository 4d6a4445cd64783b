from __future__ import annotations

import json
import shlex
from pathlib import Path

import msgspec
import pytest

from server.catalog import GGUFHeader, ResolvedModel
from server.cli.banner import banner, base_url, curl_line
from server.cli.units import in_bytes
from server.core.types import ModelInfo
from server.settings import Settings

INFO = ModelInfo(
    architecture="llama",
    description="llama 135M Q4_1",
    quantisation="Q4_1",
    parameters=134_515_008,
    size=96_600_000,
    vocabulary=49_152,
    context_train=8192,
    context=4096,
    slots=8,
    threads=2,
    kv_bytes=754_974_720,
    load_seconds=0.42,
    resident_bytes=912_000_000,
)


def model(name: str) -> ResolvedModel:
    header = GGUFHeader(
        version=3,
        architecture="llama",
        name=None,
        quantisation="Q4_1",
        context_length=8192,
        parameters=134_515_008,
        size=98_362_432,
        chat_template=True,
    )
    return ResolvedModel(name, Path(f"/models/{name}.gguf"), {}, header)


def test_the_whole_text() -> None:
    text = banner(
        Settings(),
        [model("smollm2-135m-instruct")],
        {"smollm2-135m-instruct": INFO},
        21_000_000_000,
    )
    assert text == (
        "smollm2-135m-instruct is ready, loaded in 0.4 s\n"
        "  model     llama 135M Q4_1, 98.4 MB\n"
        "  compute   2 threads\n"
        "  slots     8 × 4096 tokens, KV memory 755 MB\n"
        "\n"
        "  memory    912 MB resident, 21 GB free\n"
        "  API       http://127.0.0.1:8000/v1\n"
        "  metrics   http://127.0.0.1:8000/metrics\n"
        "\n"
        "Try it:\n"
        "  curl -N http://127.0.0.1:8000/v1/chat/completions"
        " -H 'Content-Type: application/json' -d "
        '\'{"model": "smollm2-135m-instruct", "stream": true, '
        '"messages": [{"role": "user", "content": "Hello!"}]}\'\n'
        "\n"
        "Ctrl+C stops the server.\n"
    )


def test_every_model_is_told_and_memory_is_summed() -> None:
    text = banner(Settings(), [model("a"), model("b")], {"a": INFO, "b": INFO}, 1_000)
    assert "a is ready" in text
    assert "b is ready" in text
    assert "1.82 GB resident, 1 kB free" in text


def test_a_model_of_vectors_says_what_it_makes() -> None:
    embedder = msgspec.structs.replace(INFO, kind="embed", embedding_size=384, context=512)
    text = banner(Settings(), [model("minilm")], {"minilm": embedder}, 0)
    assert "  vectors   384 numbers, of texts up to 512 tokens\n" in text
    assert "/v1/embeddings" in text and '"input": "Hello!"' in text
    ranker = msgspec.structs.replace(INFO, kind="rerank", context=512)
    text = banner(Settings(), [model("ranker")], {"ranker": ranker}, 0)
    assert "up to 512 tokens each" in text and "/v1/rerank" in text


def test_the_key_is_referred_to_and_never_shown() -> None:
    settings = Settings(api_key="sk-secret", host="0.0.0.0")
    text = banner(settings, [model("m")], {"m": INFO}, 0)
    assert "sk-secret" not in text
    assert "$INGLE_API_KEY" in text
    assert "http://127.0.0.1:8000/v1 (on every address, with API key)" in text


def test_the_curl_line_survives_the_shell() -> None:
    words = shlex.split(curl_line(Settings(), 'it\'s a "name"'))
    assert json.loads(words[-1])["model"] == 'it\'s a "name"'


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("::", "http://[::1]:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("box.lan", "http://box.lan:8000"),
    ],
)
def test_addresses(host: str, url: str) -> None:
    assert base_url(Settings(host=host)) == url


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (98_362_432, "98.4 MB"), (999_600, "1 MB"), (5 << 40, "5.5 TB")],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert in_bytes(count) == text
