"""The chat service: which engine, which prompt, which sampling, how many choices."""

from __future__ import annotations

import json

import pytest

from server.core.errors import (
    InvalidRequest,
    ModelLoading,
    ModelNotFound,
    Overloaded,
    TemplateError,
    UnsupportedParameter,
)
from server.core.types import GenerateRequest, TextPiece
from server.schemas.chat import ChatRequest
from server.services.admission import Admission
from server.services.chat import ChatService, collect
from tests.fakes import FakeEngine, FakePool, Recorder, model_info

pytestmark = pytest.mark.anyio

HI = {"messages": [{"role": "user", "content": "Hi"}]}


def _service(*engines: FakeEngine, **recommended: dict[str, float]) -> ChatService:
    pool = FakePool(*(engines or (FakeEngine(),)))
    return ChatService(pool, Recorder(), max_choices=3, recommended=recommended)


async def _asked(service: ChatService, **body: object) -> tuple[GenerateRequest, ...]:
    """What reaches the engine for this request."""
    engine, generation = await service.start(ChatRequest.model_validate(HI | body), "scope")
    async with generation:
        await generation.admitted()
    assert isinstance(engine, FakeEngine)
    return engine.requests


async def _prompt(*messages: dict[str, object], **info: object) -> str:
    engine = FakeEngine(info=model_info(**info))
    (asked,) = await _asked(_service(engine), messages=list(messages))
    return "".join(piece.text for piece in asked.prompt)


async def test_a_request_becomes_a_prompt_in_the_models_template() -> None:
    (asked,) = await _asked(_service(), max_tokens=9, stop="x")
    assert asked.prompt == (TextPiece("<|user|>Hi<|end|>"),)
    assert (asked.max_tokens, asked.stop, asked.scope) == (9, ("x",), "scope")


async def test_text_parts_are_the_same_prompt_as_a_string() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert await _prompt({"role": "user", "content": parts}) == await _prompt(
        {"role": "user", "content": "one\ntwo"}
    )


async def test_tool_turns_are_given_to_the_template_with_parsed_arguments() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    template = "{{ messages[0].tool_calls[0].function.arguments.a }}{{ messages[1].tool_call_id }}"
    text = await _prompt(
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "ok", "tool_call_id": "c"},
        chat_template=template,
    )
    assert text == "1c"


@pytest.mark.parametrize(("given", "seen"), [("", "{}"), ("{not json", '"{not json"')])
async def test_arguments_that_are_no_json_do_not_refuse_the_history(given: str, seen: str) -> None:
    call = {"function": {"name": "f", "arguments": given}}
    template = "{{ messages[0].tool_calls[0].function.arguments | tojson }}"
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    assert await _prompt(message, chat_template=template) == seen


@pytest.mark.parametrize("depth", [150, 900, 200_000])
async def test_arguments_nested_without_end_harm_nobody(depth: int) -> None:
    arguments = "[" * depth + "]" * depth
    call = {"function": {"name": "f", "arguments": arguments}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    template = "{{ messages[0].tool_calls | tojson }}"
    try:
        assert json.dumps(arguments)[1:-1] in await _prompt(message, chat_template=template)
    except TemplateError as refusal:
        assert depth > 150 and "nested" in refusal.message


async def test_the_only_model_needs_no_name() -> None:
    assert await _asked(_service())
    with pytest.raises(InvalidRequest, match="a, b") as refusal:
        await _asked(_service(FakeEngine(name="a"), FakeEngine(name="b")))
    assert refusal.value.error_code == "missing_required_parameter"


async def test_refusals_before_the_engine_is_asked() -> None:
    engine = FakeEngine()
    service = _service(engine)
    with pytest.raises(ModelNotFound):
        await _asked(service, model="other")
    with pytest.raises(UnsupportedParameter):
        await _asked(service, logprobs=True)
    with pytest.raises(InvalidRequest) as refusal:
        await _asked(service, n=4)
    assert (refusal.value.param, refusal.value.error_code) == ("n", "integer_above_max_value")
    assert engine.requests == ()


async def test_a_model_that_is_still_loading_is_unavailable() -> None:
    engine = FakeEngine()
    engine.loaded = None
    with pytest.raises(ModelLoading):
        await _asked(_service(engine))


async def test_a_base_model_cannot_chat() -> None:
    with pytest.raises(TemplateError, match="base model"):
        await _prompt({"role": "user", "content": "Hi"}, chat_template=None)


async def test_sampling_is_the_requests_then_the_operators_then_the_models() -> None:
    engine = FakeEngine(info=model_info(sampling={"top_k": 40.0, "min_p": 0.1, "top_p": 0.5}))
    service = _service(engine, fake={"top_p": 0.8, "temperature": 0.6})
    (asked,) = await _asked(service, temperature=0.2)
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p) == (0.2, 0.8)
    assert (sampling.top_k, sampling.min_p) == (40, 0.1)


async def test_each_choice_has_its_own_seed_and_id() -> None:
    asked = await _asked(_service(), n=3, seed=-2)
    assert [request.sampling.seed for request in asked] == [2**32 - 2, 2**32 - 1, 0]
    assert len({request.id for request in asked}) == 3
    assert len({request.prompt for request in asked}) == 1


async def test_collected_choices_are_complete_and_in_order() -> None:
    request = ChatRequest.model_validate(HI | {"n": 2})
    _, generation = await _service().start(request, "")
    async with generation:
        await generation.admitted()
        choices = await collect(generation)
    assert [(c.text, c.reason, c.usage and c.usage.completion_tokens) for c in choices] == [
        ("Hello", "stop", 5)
    ] * 2


def test_admission_counts_those_inside() -> None:
    admission = Admission(2)
    with admission.admit(), admission.admit():
        with pytest.raises(Overloaded) as refusal, admission.admit():
            pass
        assert refusal.value.retry_after >= 1
        assert admission.inside == 2
    assert admission.inside == 0
    with pytest.raises(ValueError, match="bug"), admission.admit():
        raise ValueError("bug")
    assert admission.inside == 0
