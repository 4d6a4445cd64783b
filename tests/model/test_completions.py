"""Completions on real models: scores that are the model's own, and holes filled where it can."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from openai.types import Completion

from . import reference, scoring
from .conftest import _from_shared, serving

pytestmark = pytest.mark.model

CONTEXT = "The capital of France is"
CONTINUATION = " Paris, and the capital of Germany is Berlin."
TEMPLATED = "<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\n"


def _post(url: str, path: str, **body: Any) -> Any:
    response = httpx2.post(url + path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def _logprobs(answer: Completion) -> Any:
    assert answer.choices[0].logprobs is not None
    return answer.choices[0].logprobs


def test_a_prompt_is_scored_as_harnesses_ask_for_it(
    client: openai.OpenAI, model: str, model_path: Path
) -> None:
    """As lm-evaluation-harness does: token ids in, the generated token cut off, sums compared."""
    context = scoring.tokens(model_path, CONTEXT)
    ids = context + scoring.tokens(model_path, CONTINUATION)
    answer = client.completions.create(
        model=model, prompt=ids, echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1
    )
    logprobs = _logprobs(answer)
    assert len(logprobs.token_logprobs) == len(ids) + 1
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    rows = scoring.distributions(model_path, ids)
    expected = [rows[i, token] for i, token in enumerate(ids[1:])]
    found = logprobs.token_logprobs[1:-1]
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert sum(found[len(context) - 1 :]) == pytest.approx(
        sum(expected[len(context) - 1 :]), abs=0.2
    )
    greedy = [
        token == max(top, key=top.get)
        for token, top in zip(logprobs.tokens[1:-1], logprobs.top_logprobs[1:-1], strict=True)
    ]
    margins = np.sort(rows, axis=1)[:-1, -1] - np.sort(rows, axis=1)[:-1, -2]
    for i, (is_greedy, margin) in enumerate(zip(greedy, margins, strict=True)):
        assert is_greedy == (rows[i].argmax() == ids[i + 1]) or margin < 0.05


def test_the_end_of_a_text_does_not_cost_its_last_score(
    client: openai.OpenAI, model: str, model_path: Path
) -> None:
    """After a whole turn the model's own next token is an end token."""
    prompt = TEMPLATED + "Blue.<|im_end|>\n<|im_start|>assistant\nBlue."
    ids = scoring.tokens(model_path, prompt)
    answer = client.completions.create(
        model=model, prompt=ids, echo=True, logprobs=1, max_tokens=1, temperature=0
    )
    assert len(_logprobs(answer).tokens) == len(ids) + 1


def test_scores_of_a_prompt_do_not_depend_on_how_it_is_asked_for(
    client: openai.OpenAI, model: str
) -> None:
    ask = {"model": model, "prompt": TEMPLATED, "temperature": 0, "logprobs": 3, "echo": True}
    read = client.completions.create(**ask, max_tokens=0)
    whole = client.completions.create(**ask, max_tokens=12)
    assert (read.choices[0].text, read.choices[0].finish_reason) == (TEMPLATED, "length")
    count = len(_logprobs(read).tokens)
    assert _logprobs(whole).tokens[:count] == _logprobs(read).tokens
    np.testing.assert_allclose(
        _logprobs(whole).token_logprobs[1:count], _logprobs(read).token_logprobs[1:], atol=0.05
    )
    assert whole.choices[0].text.startswith(TEMPLATED)


@pytest.mark.parametrize("prompt", [TEMPLATED, "Emoji: 🦊🐻🐼, 你好"])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("stop", [None, "e"])
def test_a_stream_has_the_scores_and_offsets_of_a_whole_answer(
    client: openai.OpenAI, model: str, prompt: str, echo: bool, stop: str | None
) -> None:
    ask = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 24, "stop": stop}
    ask |= {"logprobs": 2, "echo": echo}
    whole = client.completions.create(**ask)
    parts = [p for chunk in client.completions.create(**ask, stream=True) for p in chunk.choices]
    text = whole.choices[0].text
    assert "".join(part.text for part in parts) == text
    for name in ("tokens", "text_offset"):
        streamed = [v for part in parts for v in getattr(part.logprobs, name, None) or []]
        assert streamed == getattr(_logprobs(whole), name)
    offsets, tokens = _logprobs(whole).text_offset, _logprobs(whole).tokens
    for token, offset in zip(tokens, offsets, strict=True):
        # Of a token that a stop string cuts, the text has the part before it.
        assert token.startswith("bytes:") or token.startswith(text[offset : offset + len(token)])
    if stop is None:
        assert "".join(tokens) == text or any(token.startswith("bytes:") for token in tokens)


def test_greedy_text_without_a_template_is_the_models_own(
    client: openai.OpenAI, model: str, model_path: Path
) -> None:
    answer = client.completions.create(model=model, prompt=TEMPLATED, temperature=0, max_tokens=30)
    assert answer.choices[0].text == reference.greedy(model_path, TEMPLATED, 30)


def test_tokens_are_llama_cpps_and_back(server_url: str, model_path: Path) -> None:
    for text in (TEMPLATED, "naïve 🦊 跳过\n\n  spaces\t", ""):
        tokens = _post(server_url, "/tokenize", content=text)["tokens"]
        assert tokens == scoring.tokens(model_path, text)
        assert _post(server_url, "/detokenize", tokens=tokens) == {"content": text}
    as_text = _post(server_url, "/tokenize", content="<|im_end|>", parse_special=False)
    assert len(as_text["tokens"]) > 1
    pieces = _post(server_url, "/tokenize", content="🦊", with_pieces=True)["tokens"]
    data = b"".join(
        p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"]) for p in pieces
    )
    assert data.decode() == "🦊"


def test_a_templates_prompt_has_the_chats_tokens(
    server_url: str, client: openai.OpenAI, model: str
) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    prompt = _post(server_url, "/apply-template", messages=messages)["prompt"]
    chat = client.chat.completions.create(model=model, messages=messages, max_tokens=1)
    assert chat.usage is not None
    assert chat.usage.prompt_tokens == len(_post(server_url, "/tokenize", content=prompt)["tokens"])


def test_a_model_that_was_not_taught_to_fill_holes_says_so(
    client: openai.OpenAI, model: str
) -> None:
    with pytest.raises(openai.BadRequestError, match="fill-in-the-middle") as refusal:
        client.completions.create(model=model, prompt="def f(", suffix=")")
    assert (refusal.value.code, refusal.value.param) == ("unsupported_parameter", "suffix")


@pytest.fixture(scope="module")
def coder() -> Iterator[openai.OpenAI]:
    path = _from_shared("test-models/fetch", "qwen2.5-coder-0.5b")
    with serving(path, "--slots", "2", "--ctx", "1024") as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def gemma(gemma_path: Path) -> Iterator[str]:
    with serving(gemma_path, "--slots", "1", "--ctx", "512") as url:
        yield url


def test_a_hole_is_filled_with_what_fits_both_sides(coder: openai.OpenAI) -> None:
    prefix = "def add(a, b):\n    return"
    answer = coder.completions.create(
        model=coder.models.list().data[0].id,
        prompt=prefix,
        suffix="\n\nprint(add(2, 3))  # prints 5\n",
        temperature=0,
        max_tokens=24,
        stop=["\n"],
    )
    assert re.fullmatch(r" *a *\+ *b *", answer.choices[0].text), answer.choices[0].text


def test_a_model_that_wants_bos_gets_it_once(gemma: str) -> None:
    plain = _post(gemma, "/tokenize", content="Hello")["tokens"]
    begun = _post(gemma, "/tokenize", content="Hello", add_special=True, with_pieces=True)
    assert begun["tokens"][0] == {"id": 2, "piece": "<bos>"}
    assert [token["id"] for token in begun["tokens"]] == [2, *plain]
    ask = {"max_tokens": 1, "temperature": 0}
    for prompt in ("Hello", "<bos>Hello"):
        usage = _post(gemma, "/v1/completions", prompt=prompt, **ask)["usage"]
        assert usage["prompt_tokens"] == 1 + len(plain)
    assert _post(gemma, "/v1/completions", prompt="", **ask)["usage"]["prompt_tokens"] == 1


def test_bos_is_scored_but_no_part_of_the_echo(gemma: str) -> None:
    answer = _post(
        gemma, "/v1/completions", prompt="Hello world", echo=True, logprobs=1, max_tokens=0
    )
    (choice,) = answer["choices"]
    assert choice["text"] == "Hello world"
    logprobs = choice["logprobs"]
    assert len(logprobs["tokens"]) == answer["usage"]["prompt_tokens"]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["token_logprobs"][1] < 0
    assert logprobs["text_offset"][:2] == [0, 0]
