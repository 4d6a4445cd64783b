"""/v1/completions through the real app: shapes, choices, echo, scores, streams and refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import httpx2
import pytest
from openai.types import Completion

from server.core.errors import EngineError, InvalidRequest
from server.core.types import GenerateRequest, TextPiece
from tests.fakes import FakeEngine, Moment, Recorder, Script, model_info, says, writes

from .conftest import Serve

pytestmark = pytest.mark.anyio

URL = "/v1/completions"


async def _post(serve: Serve, engine: FakeEngine, **body: Any) -> httpx2.Response:
    async with serve(engine) as client:
        return await client.post(URL, json={"prompt": "Say", **body})


async def _answer(serve: Serve, script: Script, **body: Any) -> dict[str, Any]:
    response = await _post(serve, FakeEngine(script), **body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def _asked(serve: Serve, info: Any = None, **body: Any) -> tuple[GenerateRequest, ...]:
    engine = FakeEngine(writes("Hi"), info=info)
    response = await _post(serve, engine, **body)
    assert response.status_code == 200, response.text
    return engine.requests


async def _refusal(serve: Serve, info: Any = None, **body: Any) -> tuple[str | None, str | None]:
    engine = FakeEngine(info=info)
    response = await _post(serve, engine, **body)
    assert response.status_code == 400, response.text
    assert engine.requests == (), "the engine was asked"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error["code"], error["param"]


async def _frames(serve: Serve, script: Script, **body: Any) -> list[dict[str, Any]]:
    """All frames but [DONE], which is checked."""
    response = await _post(serve, FakeEngine(script), stream=True, **body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *frames, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def _collected(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The choices a whole answer would have."""
    choices: dict[int, dict[str, Any]] = {}
    for frame in frames:
        for part in frame["choices"]:
            empty = {"text": "", "index": part["index"], "logprobs": None, "finish_reason": None}
            choice = choices.setdefault(part["index"], empty)
            assert choice["finish_reason"] is None, "a choice that ended goes on"
            choice["text"] += part["text"]
            choice["finish_reason"] = part["finish_reason"]
            if part["logprobs"] and choice["logprobs"]:
                for name, values in part["logprobs"].items():
                    choice["logprobs"][name] += values
            elif part["logprobs"]:
                choice["logprobs"] = part["logprobs"]
    return [choices[index] for index in sorted(choices)]


async def test_an_answer_is_what_the_sdk_takes_for_one(serve: Serve) -> None:
    answer = await _answer(serve, says("Hello", prompt=3, cached=2))
    Completion.model_validate_json(json.dumps(answer), strict=True)
    assert re.fullmatch(r"cmpl-[A-Za-z0-9]{24}", answer["id"])
    assert (answer["object"], answer["model"]) == ("text_completion", "fake")
    assert answer["system_fingerprint"] == "fp_fake"
    assert answer["choices"] == [
        {"text": "Hello", "index": 0, "logprobs": None, "finish_reason": "stop"}
    ]
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 5, 8)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 2


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("a", [("a", ())]),
        (["a"], [("a", ())]),
        (["a", "b", "a"], [("a", ()), ("b", ()), ("a", ())]),
        ([1, 2], [("", (1, 2))]),
        ([0], [("", (0,))]),
        ([[1], [2, 3]], [("", (1,)), ("", (2, 3))]),
        (["a", [2, 3]], [("a", ()), ("", (2, 3))]),
        ("<|user|>Hi<|end|>", [("<|user|>Hi<|end|>", ())]),
    ],
)
async def test_the_shapes_of_a_prompt(serve: Serve, prompt: Any, asked: list[Any]) -> None:
    """Text goes as it is: control tokens may be spelled out, no template is put around it."""
    requests = await _asked(serve, prompt=prompt)
    assert [("".join(p.text for p in r.prompt), r.prompt_tokens) for r in requests] == asked
    assert not any(piece.plain for r in requests for piece in r.prompt)


@pytest.mark.parametrize("prompt", [None, "", [""]])
async def test_no_prompt_is_the_beginning_of_a_text(serve: Serve, prompt: Any) -> None:
    (asked,) = await _asked(serve, model_info(bos_token="<s>"), prompt=prompt)
    assert asked.prompt == (TextPiece("<s>"),)
    assert await _refusal(serve, prompt=prompt) == ("invalid_value", "prompt")


async def test_a_prompt_that_is_left_out_is_none(serve: Serve) -> None:
    engine = FakeEngine(info=model_info(bos_token="<s>"))
    async with serve(engine) as client:
        assert (await client.post(URL, json={})).status_code == 200
    assert engine.requests[0].prompt == (TextPiece("<s>"),)


@pytest.mark.parametrize(
    ("prompt", "code", "param"),
    [
        ([], "empty_array", "prompt"),
        ([[]], "empty_array", "prompt"),
        (["a", []], "empty_array", "prompt"),
        (7, "invalid_type", "prompt"),
        (True, "invalid_type", "prompt"),
        ({"a": 1}, "invalid_type", "prompt"),
        ([True], "invalid_type", "prompt"),
        ([1, "a"], "invalid_type", "prompt"),
        ([1, True], "invalid_type", "prompt"),
        ([1.5], "invalid_type", "prompt"),
        ([None], "invalid_type", "prompt"),
        (["a", None], "invalid_type", "prompt"),
        ([[1, "a"]], "invalid_type", "prompt"),
        ([[[1]]], "invalid_type", "prompt"),
        ([-1], "invalid_value", "prompt"),
        ([10**30], "invalid_value", "prompt"),
        ([300], "invalid_value", "prompt"),
        ([[1], [2, 300]], "invalid_value", "prompt[1]"),
        (["a"] * 513, "array_above_max_length", "prompt"),
    ],
    ids=repr,
)
async def test_what_is_no_prompt(serve: Serve, prompt: Any, code: str, param: str) -> None:
    assert await _refusal(serve, prompt=prompt) == (code, param)


@pytest.mark.parametrize(
    ("given", "limit"), [(None, 16), (0, 0), (1, 1), (500, 500), (-1, 1 << 30), (10**30, 1 << 30)]
)
async def test_the_limit_is_16_unless_given(serve: Serve, given: int | None, limit: int) -> None:
    (asked,) = await _asked(serve, max_tokens=given)
    assert asked.max_tokens == limit


async def test_choices_are_counted_through_prompts(serve: Serve) -> None:
    """P-1: index i·n + j, prompts counted once each, seeds as if each prompt came alone."""
    engine = FakeEngine(writes("a", "b", "c", "d"))
    response = await _post(serve, engine, prompt=["one", "two"], n=2, seed=7)
    answer = response.json()
    assert [(c["index"], c["text"]) for c in answer["choices"]] == [*enumerate("abcd")]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (6, 4)
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 2
    asked = [(r.prompt[0].text, r.sampling.seed, r.source) for r in engine.requests]
    assert asked == [
        ("one", 7, "prompt[0]"),
        ("one", 8, "prompt[0]"),
        ("two", 7, "prompt[1]"),
        ("two", 8, "prompt[1]"),
    ]
    frames = await _frames(serve, writes("a", "b", "c", "d"), prompt=["one", "two"], n=2)
    assert _collected(frames) == answer["choices"]


async def test_scores_are_four_lists_of_one_length(serve: Serve) -> None:
    answer = await _answer(serve, writes("Hi!"), logprobs=1)
    Completion.model_validate_json(json.dumps(answer), strict=True)
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["H", "i", "!"],
        "token_logprobs": [-1.0, -1.125, -1.25],
        "top_logprobs": [{"~": -9.0, "H": -1.0}, {"~": -9.0, "i": -1.125}, {"~": -9.0, "!": -1.25}],
        "text_offset": [0, 1, 2],
    }


@pytest.mark.parametrize(
    ("given", "asked"), [(None, None), (False, None), (True, 0), (0, 0), (5, 5), (20, 20)]
)
async def test_logprobs_is_a_number_and_flags_are_taken_for_one(
    serve: Serve, given: Any, asked: int | None
) -> None:
    (request,) = await _asked(serve, logprobs=given)
    assert request.logprobs == asked
    assert not request.prompt_logprobs


async def test_no_tokens_have_no_scores(serve: Serve) -> None:
    choice = (await _answer(serve, writes("Hi"), logprobs=0, max_tokens=0))["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("", "length")
    assert choice["logprobs"] == {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }


@pytest.mark.parametrize("limit", [0, 1, 9])
async def test_an_echo_is_scored_from_its_second_token_on(serve: Serve, limit: int) -> None:
    answer = await _answer(serve, writes("Hi"), echo=True, logprobs=1, max_tokens=limit)
    said = "Hi"[:limit]
    choice = answer["choices"][0]
    assert choice["text"] == "Say" + said
    assert choice["logprobs"] == {
        "tokens": ["S", "a", "y", *said],
        "token_logprobs": [None, -2.0, -2.0, *[-1.0, -1.125][:limit]],
        "top_logprobs": [
            *(None, {"a": -2.0}, {"y": -2.0}),
            *[{"~": -9.0, "H": -1.0}, {"~": -9.0, "i": -1.125}][:limit],
        ],
        "text_offset": [*range(3 + len(said))],
    }


@pytest.mark.parametrize(("prompt", "begun"), [("Say", "<s>"), ("", "<s>"), ("<s>Say", "")])
async def test_what_the_server_put_before_the_prompt_is_not_echoed(
    serve: Serve, prompt: str, begun: str
) -> None:
    read = begun + prompt
    engine = FakeEngine(writes("Hi", read=read), info=model_info(bos_token="<s>"))
    response = await _post(serve, engine, prompt=prompt, echo=True, logprobs=0)
    (choice,) = response.json()["choices"]
    assert choice["text"] == prompt + "Hi"
    tokens, offsets = choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"]
    assert "".join(tokens) == read + "Hi"
    assert offsets == [max(0, i - len(begun)) for i in range(len(tokens))]


async def test_a_scored_prompt_with_one_token_has_one(serve: Serve) -> None:
    """Harnesses cut the generated token off the lists: it may not be missing."""
    (scoring,) = await _asked(serve, echo=True, logprobs=1, max_tokens=1)
    assert scoring.prompt_logprobs and scoring.sampling.min_tokens == 1
    for body in ({"echo": True, "max_tokens": 1}, {"logprobs": 1, "max_tokens": 1}):
        (asked,) = await _asked(serve, **body)
        assert not asked.prompt_logprobs and asked.sampling.min_tokens == 0


async def test_an_echo_without_scores_is_the_prompt_as_it_came(serve: Serve) -> None:
    prompts = ["é<|end|>", [0xC3, 0xA9, 256]]
    answer = await _answer(serve, writes("Hi"), prompt=prompts, n=2, echo=True)
    assert [choice["text"] for choice in answer["choices"]] == ["é<|end|>Hi"] * 4
    assert all(choice["logprobs"] is None for choice in answer["choices"])


@pytest.mark.parametrize("logprobs", [None, 1])
@pytest.mark.parametrize("echo", [False, True])
async def test_a_stream_says_the_same_as_a_whole_answer(
    serve: Serve, echo: bool, logprobs: int | None
) -> None:
    ask = {"n": 2, "echo": echo, "logprobs": logprobs}
    whole = await _answer(serve, writes("Hi!", "Ho"), **ask)
    frames = await _frames(serve, writes("Hi!", "Ho"), **ask)
    assert _collected(frames) == whole["choices"]
    assert {frame["object"] for frame in frames} == {"text_completion"}
    assert len({(frame["id"], frame["created"], frame["model"]) for frame in frames}) == 1
    assert all(len(frame["choices"]) == 1 and "usage" not in frame for frame in frames)
    if echo:
        assert [frame["choices"][0]["text"] for frame in frames[:2]] == ["Say", "Say"]


async def test_a_prompt_is_scored_once_for_all_its_choices(serve: Serve) -> None:
    """The last choice of each prompt has said all before the prompt is scored."""

    def late(requests: tuple[GenerateRequest, ...]) -> Iterable[Moment]:
        admitted, scored, *rest = writes("Hi", "Ho")(requests)
        first = {request.id for request in requests if request.prompt_logprobs}
        yield admitted
        yield from ([e for e in moment if e.id not in first] for moment in rest)
        yield scored
        yield from ([e for e in moment if e.id in first] for moment in rest)

    ask = {"prompt": ["one", "two"], "n": 2, "echo": True, "logprobs": 1}
    engine = FakeEngine(late)
    response = await _post(serve, engine, **ask)
    assert [r.prompt_logprobs for r in engine.requests] == [True, False] * 2
    choices = response.json()["choices"]
    assert [choice["text"] for choice in choices] == ["SayHi", "SayHo"] * 2
    for choice in choices:
        assert choice["logprobs"]["token_logprobs"][:3] == [None, -2.0, -2.0]
        assert choice["logprobs"]["text_offset"] == [*range(5)]
    assert _collected(await _frames(serve, late, **ask)) == choices


async def test_usage_is_a_frame_of_its_own_at_the_end(serve: Serve) -> None:
    options = {"include_usage": True}
    ask = {"prompt": ["one", "two"], "n": 2}
    *frames, last = await _frames(serve, writes("Hi"), **ask, stream_options=options)
    assert all(frame["choices"] and frame["usage"] is None for frame in frames)
    assert last["choices"] == []
    assert last["usage"] == (await _answer(serve, writes("Hi"), **ask))["usage"]


async def test_the_best_of_several_is_the_one_of_the_highest_mean(serve: Serve) -> None:
    """Text i has about -(i + 1) a token: the second prompt's first two are texts 3 and 4."""
    texts = ("one", "two", "", "four", "five", "six")
    engine = FakeEngine(writes(*reversed(texts[:3]), *reversed(texts[3:])))
    response = await _post(serve, engine, prompt=["a", "b"], best_of=3, n=2)
    answer = response.json()
    assert [c["text"] for c in answer["choices"]] == ["two", "one", "six", "five"]
    assert [c["index"] for c in answer["choices"]] == [0, 1, 2, 3]
    assert all(c["logprobs"] is None for c in answer["choices"])
    assert answer["usage"]["completion_tokens"] == sum(map(len, texts)), "all that was generated"
    assert [r.logprobs for r in engine.requests] == [0] * 6


async def test_the_best_keep_their_scores_when_asked(serve: Serve) -> None:
    answer = await _answer(serve, writes("", "two"), best_of=2, logprobs=0, echo=True)
    (choice,) = answer["choices"]
    assert choice["text"] == "Saytwo"
    assert choice["logprobs"]["token_logprobs"] == [None, -2.0, -2.0, -2.0, -2.125, -2.25]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"best_of": 1, "n": 2}, "invalid_value", "best_of"),
        ({"best_of": 2, "stream": True}, "invalid_value", "best_of"),
        ({"best_of": 21}, "integer_above_max_value", "best_of"),
        ({"best_of": 17}, "integer_above_max_value", "best_of"),
        ({"n": 17}, "integer_above_max_value", "n"),
        ({"n": 0}, "integer_below_min_value", "n"),
        ({"prompt": ["a"] * 512, "n": 3}, "array_above_max_length", "prompt"),
        ({"max_tokens": -2}, "integer_below_min_value", "max_tokens"),
        ({"max_tokens": True}, "invalid_type", "max_tokens"),
        ({"logprobs": 21}, "integer_above_max_value", "logprobs"),
        ({"logprobs": -1}, "integer_below_min_value", "logprobs"),
        ({"suffix": "x"}, "unsupported_parameter", "suffix"),
        ({"prompt_embeds": "x"}, "unsupported_parameter", "prompt_embeds"),
        ({"use_beam_search": True}, "unsupported_parameter", "use_beam_search"),
        ({"stop_token_ids": [300]}, "invalid_value", "stop_token_ids[0]"),
    ],
    ids=repr,
)
async def test_what_is_refused(serve: Serve, body: Any, code: str, param: str) -> None:
    assert await _refusal(serve, **body) == (code, param)


@pytest.mark.parametrize("body", [{"best_of": 0}, {"best_of": 1}, {"best_of": 2, "n": 2}])
async def test_as_many_as_are_returned_may_stream(serve: Serve, body: Any) -> None:
    frames = await _frames(serve, writes("Hi"), **body)
    assert {c["text"] for c in _collected(frames)} == {"Hi"}


async def test_a_suffix_is_written_as_the_model_was_taught_to(serve: Serve) -> None:
    """The texts around the hole are text, whatever they spell."""
    info = model_info(fill_in_middle=("<PRE>", "<SUF>", "<MID>"))
    (asked,) = await _asked(serve, info, prompt="def <|end|>", suffix=")", echo=True)
    assert asked.prompt == (
        TextPiece("<PRE>"),
        TextPiece("def <|end|>", plain=True),
        TextPiece("<SUF>"),
        TextPiece(")", plain=True),
        TextPiece("<MID>"),
    )
    assert await _refusal(serve, info, prompt=[1], suffix="x") == ("invalid_value", "suffix")
    scored = {"echo": True, "logprobs": 1}
    assert await _refusal(serve, info, suffix="x", **scored) == ("invalid_value", "echo")


async def test_an_empty_suffix_is_none(serve: Serve) -> None:
    for info in (None, model_info(fill_in_middle=("<PRE>", "<SUF>", "<MID>"))):
        (asked,) = await _asked(serve, info, suffix="")
        assert asked.prompt == (TextPiece("Say"),)


async def test_sampling_stops_and_structure_are_as_for_chat(serve: Serve) -> None:
    (asked,) = await _asked(
        serve,
        temperature=0.5,
        typical_p=0.9,
        mirostat=2,
        min_tokens=3,
        ignore_eos=True,
        stop=["x", ""],
        stop_token_ids=[5],
        priority=4,
        response_format={"type": "json_object"},
    )
    sampling = asked.sampling
    assert (sampling.temperature, sampling.typical_p, sampling.mirostat) == (0.5, 0.9, 2)
    assert (sampling.min_tokens, sampling.ignore_end) == (3, True)
    assert (asked.stop, asked.stop_tokens, asked.priority) == (("x",), (5,), 4)
    assert asked.grammar.startswith("start: body\n") and "%json" in asked.grammar


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"grammar": 'root ::= "a"'}, "grammar"),
        ({"guided_choice": ["a"]}, "guided_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
async def test_a_grammar_the_engine_refuses_is_the_fields_fault(
    serve: Serve, body: Any, param: str
) -> None:
    refusal = InvalidRequest("too big", code="invalid_grammar")
    response = await _post(serve, FakeEngine(lambda _: [refusal]), **body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "invalid_grammar")
    assert error["param"] == param


async def test_a_stream_that_breaks_ends_with_an_error_and_done(serve: Serve) -> None:
    def dies(requests: Any) -> Any:
        return [*list(writes("Hello")(requests))[:4], EngineError("it died")]

    *before, error = await _frames(serve, dies)
    assert error["error"]["code"] == "engine_error"
    assert "".join(frame["choices"][0]["text"] for frame in before) == "He"
    assert all(frame["choices"][0]["finish_reason"] is None for frame in before)


OPTIONAL = sorted(
    {"prompt", "suffix", "max_tokens", "logprobs", "echo", "best_of", "stream", "stream_options"}
    | {"n", "stop", "seed", "logit_bias", "user", "model", "grammar", "tools", "prompt_embeds"}
)


@pytest.mark.parametrize("name", OPTIONAL)
async def test_null_is_absent(serve: Serve, name: str) -> None:
    info = model_info(bos_token="<s>")
    (asked,) = await _asked(serve, info, **{name: None})
    assert (asked.max_tokens, asked.logprobs, asked.stop, asked.grammar) == (16, None, (), "")


async def test_the_record_counts_every_prompt_once() -> None:
    from server.schemas.completions import CompletionRequest
    from server.services.completions import CompletionService
    from tests.fakes import FakePool

    stats = Recorder()
    service = CompletionService(
        FakePool(FakeEngine(writes("Hi"))), stats, max_choices=4, recommended={}
    )
    request = CompletionRequest.model_validate({"prompt": ["one", "two"], "n": 2})
    _, completion = await service.start(request, "scope")
    async with completion.generation:
        assert await completion.admitted() == 6
        await completion.collect()
    (record,) = stats.requests
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (6, 2, 8)
