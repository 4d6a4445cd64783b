from __future__ import annotations

import pytest

from server.catalog.quants import Choice, choose, holds, split_parts
from server.catalog.reference import (
    HubReference,
    OllamaReference,
    UrlReference,
    parse_reference,
)
from server.core.errors import ConfigError

SHA = "ab" * 32


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("hf:Qwen/Qwen3-0.6B-GGUF", HubReference("Qwen/Qwen3-0.6B-GGUF")),
        ("hf:o/r:q4_k_m", HubReference("o/r", quant="q4_k_m")),
        ("hf:o/r/a.gguf", HubReference("o/r", file="a.gguf")),
        ("hf:o/r/deep/a b.gguf", HubReference("o/r", file="deep/a b.gguf")),
        ("hf.co/o/r:Q8_0", HubReference("o/r", quant="Q8_0")),
        ("https://huggingface.co/o/r", HubReference("o/r")),
        ("https://huggingface.co/o/r/tree/main", HubReference("o/r")),
        (
            "https://huggingface.co/o/r/blob/main/d/a.gguf",
            HubReference("o/r", file="d/a.gguf"),
        ),
        (
            "https://huggingface.co/o/r/resolve/main/a.gguf?download=true",
            HubReference("o/r", file="a.gguf"),
        ),
        (
            "https://huggingface.co/o/r/resolve/v2/a.gguf",
            UrlReference("https://huggingface.co/o/r/resolve/v2/a.gguf"),
        ),
        (f"https://x.org/a.gguf#sha256={SHA.upper()}", UrlReference("https://x.org/a.gguf", SHA)),
        ("https://x.org/a.gguf?v=2", UrlReference("https://x.org/a.gguf?v=2")),
        (f"http://x.org/a.gguf#sha256={SHA}", UrlReference("http://x.org/a.gguf", SHA)),
        ("ollama:llama3.2:1b", OllamaReference("llama3.2:1b")),
        ("ollama:me/mine", OllamaReference("me/mine")),
        ("smollm2", None),
        ("./a.gguf", None),
        ("o/r", None),
    ],
)
def test_what_a_word_means(word: str, meant: object) -> None:
    assert parse_reference(word) == meant


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("hf:only-one", "is not a model on Hugging Face; write hf:ORG/REPO"),
        ("hf:o/../r", "is not a model on Hugging Face"),
        ("hf:o/r/../../../etc/a.gguf", "is not a model on Hugging Face"),
        ("hf:o/r/%2e%2e/a.gguf", "is not a model on Hugging Face"),
        ("hf:o/r//a.gguf", "is not a model on Hugging Face"),
        ("hf:o/r/model.safetensors", "is not a model on Hugging Face"),
        ("hf:o/r:", "is not a model on Hugging Face"),
        ("hf:o/r:../x", "is not a model on Hugging Face"),
        ("hf:o/r\x1b[2J", "is not a model on Hugging Face"),
        ("https://x.org/", "does not end in the name of a .gguf file"),
        ("https://x.org/..%2Fa.gguf", "does not end in the name of a .gguf file"),
        ("https://x.org/a.gguf#sha256=12", "ends in no checksum"),
        ("http://x.org/a.gguf", "use https://, or add #sha256="),
        ("https://user:secret@x.org/a.gguf", "an address with a password in it"),
        ("https://:443/a.gguf", "is not an address"),
        ("https://x.org:99999/a.gguf", "is not an address"),
        ("ollama:", "is not a model of Ollama"),
        ("ollama:../../x", "is not a model of Ollama"),
    ],
)
def test_a_malformed_one_is_refused(word: str, cause: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_reference(word)
    assert cause in caught.value.message
    assert "secret" not in caught.value.message


USUAL = ["m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m-Q8_0.gguf", "README.md"]
SPLIT = [f"Q8_0/big-Q8_0-0000{part}-of-00003.gguf" for part in (1, 2, 3)]


@pytest.mark.parametrize(
    ("paths", "reference", "name", "files"),
    [
        (USUAL, HubReference("o/r"), "o/r:Q4_K_M", ["m-Q4_K_M.gguf"]),
        (USUAL[2:], HubReference("o/r"), "o/r:Q8_0", ["m-Q8_0.gguf"]),
        (["b-Q6_K.gguf", "a-Q5_0.gguf"], HubReference("o/r"), "o/r:Q5_0", ["a-Q5_0.gguf"]),
        (USUAL, HubReference("o/r", quant="q2_k"), "o/r:Q2_K", ["m-Q2_K.gguf"]),
        (USUAL, HubReference("o/r", file="m-Q8_0.gguf"), "o/r:Q8_0", ["m-Q8_0.gguf"]),
        (["m.Q8_0.gguf"], HubReference("o/r"), "o/r:Q8_0", ["m.Q8_0.gguf"]),
        (["m-f16.gguf"], HubReference("o/r", quant="F16"), "o/r:F16", ["m-f16.gguf"]),
        (["m-bf16.gguf"], HubReference("o/r"), "o/r:BF16", ["m-bf16.gguf"]),
        (["ggml-model-i2_s.gguf"], HubReference("o/r"), "o/r:I2_S", ["ggml-model-i2_s.gguf"]),
        (["SmolLM2-135M.gguf"], HubReference("o/r"), "o/r:SmolLM2-135M", ["SmolLM2-135M.gguf"]),
        (SPLIT, HubReference("o/r"), "o/r:Q8_0", SPLIT),
        (SPLIT, HubReference("o/r", file=SPLIT[1]), "o/r:Q8_0", SPLIT),
        (
            ["a-UD-Q4_K_XL.gguf"],
            HubReference("o/r", quant="UD-Q4_K_XL"),
            "o/r:Q4_K_XL",
            ["a-UD-Q4_K_XL.gguf"],
        ),
    ],
)
def test_what_is_chosen(
    paths: list[str], reference: HubReference, name: str, files: list[str]
) -> None:
    assert choose(paths, reference) == Choice(name, tuple(files))


def test_files_of_one_quantisation_have_names_that_find_them_again() -> None:
    paths = ["a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "x/m.gguf", "y/m.gguf"]
    names = {}
    for path in paths:
        choice = choose(paths, HubReference("o/r", file=path))
        again = parse_reference(f"hf:{choice.name}")
        assert isinstance(again, HubReference)
        assert choose(paths, again).files == (path,)
        names[choice.name] = path
    assert list(names) == ["o/r:Q4_K_M", "o/r:b-Q4_K_M", "o/r:x/m", "o/r:y/m"]


@pytest.mark.parametrize(
    ("paths", "reference", "cause"),
    [
        (
            USUAL,
            HubReference("o/r", quant="Q5_K_M"),
            "o/r has no Q5_K_M; it has Q2_K, Q4_K_M, Q8_0",
        ),
        (USUAL, HubReference("o/r", quant="4_K_M"), "o/r has no 4_K_M"),
        (USUAL, HubReference("o/r", file="x.gguf"), "it has m-Q2_K.gguf, m-Q4_K_M.gguf"),
        (["mmproj.gguf", "a.bin"], HubReference("o/r"), "o/r holds no GGUF model"),
        (SPLIT[:2], HubReference("o/r"), "is incomplete: Q8_0/big-Q8_0-00003-of-00003.gguf"),
    ],
)
def test_what_is_not_there_is_told(paths: list[str], reference: HubReference, cause: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose(paths, reference)
    assert cause in caught.value.message


def test_without_a_quantisation_only_the_usual_one_is_certain() -> None:
    assert holds(USUAL, HubReference("o/r"))
    assert not holds(["m-Q8_0.gguf"], HubReference("o/r"))
    assert holds(["m-Q8_0.gguf"], HubReference("o/r", quant="Q8_0"))


def test_the_parts_of_a_split_model() -> None:
    assert split_parts("a.gguf") == ["a.gguf"]
    assert split_parts("a-00002-of-00002.gguf") == [
        "a-00001-of-00002.gguf",
        "a-00002-of-00002.gguf",
    ]
