"""Completions and tokens through the real SDK and a real uvicorn, on engines that echo."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
from openai.types import Completion

from .conftest import Server

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

MIXED = "Hi 🦊, 跳过 naïve 👩‍🚀 e\u0301 — \u2028 end"


def _prompt(said: str) -> str:
    """What an echo repeats, as its template would write it."""
    return f"<|turn|>user\n{said}<|end|><|turn|>assistant\n"


def _ask(said: str, **more: Any) -> dict[str, Any]:
    """Greedy, so that the echo is the text itself."""
    return {"model": "echo", "prompt": _prompt(said), "temperature": 0, "max_tokens": 200} | more


def _strict(completion: Completion) -> None:
    Completion.model_validate_json(completion.model_dump_json(exclude_unset=True), strict=True)


def _text(chunks: list[Completion], index: int = 0) -> str:
    return "".join(c.text for chunk in chunks for c in chunk.choices if c.index == index)


def _post(server: Server, path: str, **body: Any) -> Any:
    response = httpx2.post(server.base + path, json={"model": "echo", **body})
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("limits", [{}, {"max_tokens": 12}, {"stop": "naïve"}], ids=str)
@pytest.mark.parametrize("logprobs", [None, 2])
def test_a_stream_says_the_same_as_a_whole_answer(
    client: openai.OpenAI, limits: dict[str, Any], logprobs: int | None
) -> None:
    ask = _ask(MIXED, logprobs=logprobs) | limits
    whole = client.completions.create(**ask)
    _strict(whole)
    (choice,) = whole.choices
    chunks = list(client.completions.create(**ask, stream=True))
    parts = [part for chunk in chunks for part in chunk.choices]
    assert _text(chunks) == choice.text
    assert MIXED.startswith(choice.text.removesuffix("\ufffd"))
    assert [part.finish_reason for part in parts if part.finish_reason] == [choice.finish_reason]
    if logprobs is None:
        assert choice.logprobs is None
        return
    assert choice.logprobs is not None and choice.logprobs.tokens
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        streamed = [value for part in parts for value in getattr(part.logprobs, name, None) or []]
        assert streamed == getattr(choice.logprobs, name)


async def test_the_async_sdk_says_the_same(server: Server) -> None:
    async with server.async_client() as client:
        whole = await client.completions.create(**_ask(MIXED))
        stream = await client.completions.create(**_ask(MIXED), stream=True)
        assert _text([chunk async for chunk in stream]) == whole.choices[0].text == MIXED


def test_sixteen_tokens_unless_asked_for_more(client: openai.OpenAI) -> None:
    ask = _ask("x" * 50)
    del ask["max_tokens"]
    answer = client.completions.create(**ask)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("x" * 16, "length")


def test_prompts_times_choices_come_in_order(client: openai.OpenAI) -> None:
    prompts = [_prompt(said) for said in ("abcdef", "uvwxyz")]
    ask = _ask("", prompt=prompts, n=2, seed=1, temperature=1)
    whole = client.completions.create(**ask)
    assert [c.index for c in whole.choices] == [0, 1, 2, 3]
    assert [c.text for c in whole.choices] == ["bcdefa", "cdefab", "vwxyzu", "wxyzuv"]
    options = {"include_usage": True}
    chunks = list(client.completions.create(**ask, stream=True, stream_options=options))
    assert [_text(chunks, i) for i in range(4)] == [c.text for c in whole.choices]
    alone = client.completions.create(**ask | {"prompt": prompts[0], "n": 1})
    assert whole.usage is not None and alone.usage is not None and chunks[-1].usage is not None
    assert whole.usage.prompt_tokens == 2 * alone.usage.prompt_tokens
    assert whole.usage.completion_tokens == 24
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


def test_tokens_are_a_prompt_as_their_text_is(server: Server, client: openai.OpenAI) -> None:
    tokens = _post(server, "/tokenize", content=_prompt(MIXED))["tokens"]
    assert tokens.count(257) == 2, "control tokens were read as such"
    assert _post(server, "/v1/detokenize", tokens=tokens) == {"content": _prompt(MIXED)}
    answer = client.completions.create(**_ask("", prompt=tokens, echo=True))
    assert answer.choices[0].text == _prompt(MIXED) + MIXED


def test_a_templates_prompt_is_answered_as_the_chat_is(
    server: Server, client: openai.OpenAI
) -> None:
    messages = [{"role": "user", "content": "Hi there"}]
    prompt = _post(server, "/apply-template", messages=messages)["prompt"]
    assert prompt == _prompt("Hi there")
    chat = client.chat.completions.create(model="echo", messages=messages, temperature=0)
    answer = client.completions.create(**_ask("", prompt=prompt))
    assert answer.choices[0].text == chat.choices[0].message.content == "Hi there"
    assert answer.usage is not None and chat.usage is not None
    assert answer.usage.prompt_tokens == chat.usage.prompt_tokens


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 200])
def test_an_echo_with_scores_covers_every_token(
    server: Server, client: openai.OpenAI, stream: bool, limit: int
) -> None:
    ask = _ask("naïve", echo=True, logprobs=1, max_tokens=limit)
    answer = client.completions.create(**ask, stream=stream)
    chunks = [answer] if isinstance(answer, Completion) else list(answer)
    parts = [part for chunk in chunks for part in chunk.choices]
    text = "".join(part.text for part in parts)
    expected = (_prompt("naïve").encode() + "naïve".encode()[:limit]).decode()
    assert text == expected
    scores = [part.logprobs for part in parts if part.logprobs]
    tokens = [token for score in scores for token in score.tokens or []]
    offsets = [offset for score in scores for offset in score.text_offset or []]
    logprobs = [value for score in scores for value in score.token_logprobs or []]
    count = len(_post(server, "/tokenize", content=_prompt("naïve"))["tokens"])
    assert len(tokens) == len(offsets) == len(logprobs) == count + len("naïve".encode()[:limit])
    assert logprobs[0] is None
    assert all(value is not None and -9999.0 <= value <= 0.0 for value in logprobs[1:])
    assert all(
        text[offset:].startswith(token)
        for token, offset in zip(tokens, offsets, strict=True)
        if not token.startswith("bytes:")
    )
    assert offsets == sorted(offsets)


def test_the_best_of_several(client: openai.OpenAI) -> None:
    ask = _ask("abcdef", best_of=3, n=1, seed=1, temperature=1)
    answer = client.completions.create(**ask)
    assert answer.choices[0].text in ("bcdefa", "cdefab", "defabc")
    assert answer.usage is not None and answer.usage.completion_tokens == 18


def test_a_choice_is_kept_to(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        **_ask("no idea", extra_body={"guided_choice": ["yes", "no"]})
    )
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("no", "stop")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_too_long_is_refused_by_its_name(client: openai.OpenAI, stream: bool) -> None:
    for prompt, param in (("x" * 2000, "prompt"), (["x", "x" * 2000], "prompt[1]")):
        with pytest.raises(openai.BadRequestError) as refusal:
            client.completions.create(model="echo", prompt=prompt, stream=stream)
        assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", param)
        assert f"your {param} resulted in 2000 tokens" in refusal.value.message
    with pytest.raises(openai.BadRequestError) as refusal:
        client.completions.create(model="echo", prompt=[1] * 2000, stream=stream)
    assert refusal.value.code == "context_length_exceeded"


def test_what_this_model_cannot_do(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="fill-in-the-middle") as refusal:
        client.completions.create(model="echo", prompt="def f(", suffix=")")
    assert (refusal.value.code, refusal.value.param) == ("unsupported_parameter", "suffix")
    with pytest.raises(openai.BadRequestError) as refusal:
        client.completions.create(model="echo", prompt=[300])
    assert (refusal.value.code, refusal.value.param) == ("invalid_value", "prompt")


def test_tokens_outside_the_vocabulary_are_the_clients_fault(server: Server) -> None:
    for tokens, param in (([300], "tokens[0]"), ([1, 2**30], "tokens[1]")):
        response = httpx2.post(
            server.base + "/detokenize", json={"tokens": tokens, "model": "echo"}
        )
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, param)
        assert "from 0 to" in error["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("token", ["259", "999999999"])
def test_a_bias_of_a_token_there_is_not(client: openai.OpenAI, token: str, stream: bool) -> None:
    bias: dict[str, Any] = {"model": "echo", "logit_bias": {"1": 0, token: -100}, "stream": stream}
    hi: Any = [{"role": "user", "content": "Hi"}]
    for ask in (
        lambda: client.completions.create(prompt="Hi", **bias),
        lambda: client.chat.completions.create(messages=hi, **bias),
    ):
        with pytest.raises(openai.BadRequestError, match=f"{token}.*from 0 to 258") as refusal:
            ask()
        assert (refusal.value.code, refusal.value.param) == ("invalid_value", "logit_bias")


def test_user_text_is_text_where_asked(server: Server) -> None:
    as_text = _post(server, "/tokenize", content="<|end|>", parse_special=False, with_pieces=True)
    assert [token["piece"] for token in as_text["tokens"]] == list("<|end|>")
    assert _post(server, "/tokenize", content="<|end|>") == {"tokens": [256]}
