"""The chat service: which engine, which prompt, which sampling, how many choices."""

from __future__ import annotations

import json

import pytest

from server.core.errors import (
    InvalidRequest,
    ModelLoading,
    ModelNotFound,
    TemplateError,
    UnsupportedParameter,
)
from server.core.types import FinishReason, GenerateRequest, TextPiece, Usage
from server.schemas.chat import ChatRequest
from server.schemas.chat_answer import Choice, Ended
from server.services.chat import ChatService, collect
from server.services.formats.base import Ask, Tool
from tests.fakes import FakeEngine, FakeFormat, FakePool, Recorder, Script, model_info, says

pytestmark = pytest.mark.anyio

HI = {"messages": [{"role": "user", "content": "Hi"}]}


def _service(*engines: FakeEngine, **recommended: dict[str, float]) -> ChatService:
    pool = FakePool(*(engines or (FakeEngine(),)))
    return ChatService(pool, Recorder(), max_choices=3, recommended=recommended)


def _reading(format: FakeFormat, engine: FakeEngine | None = None) -> ChatService:
    """A service whose one model has this format."""
    pool = FakePool(engine or FakeEngine())
    return ChatService(pool, Recorder(), max_choices=3, recommended={}, format_of=lambda _: format)


def _request(**body: object) -> ChatRequest:
    return ChatRequest.model_validate_json(json.dumps(HI | body))


async def _asked(service: ChatService, **body: object) -> tuple[GenerateRequest, ...]:
    """What reaches the engine for this request."""
    engine, answer = await service.start(_request(**body), "scope")
    async with answer.generation:
        await answer.admitted()
    assert isinstance(engine, FakeEngine)
    return engine.requests


async def _ask(**body: object) -> Ask:
    """What the format is asked."""
    format = FakeFormat()
    await _asked(_reading(format), **body)
    return format.ask


async def _collected(script: Script, **body: object) -> list[Choice]:
    """The choices of an answer in the fake format's markup."""
    request = _request(**body)
    _, answer = await _reading(FakeFormat(), FakeEngine(script)).start(request, "")
    async with answer.generation:
        await answer.admitted()
        return await collect(answer, request.n or 1)


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


@pytest.mark.parametrize("depth", [50, 900, 200_000])
async def test_arguments_nested_without_end_harm_nobody(depth: int) -> None:
    arguments = '{"a":' * depth + "1" + "}" * depth
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    template = (
        "{% for message in messages %}{{ message.content }}"
        "{% for call in message.tool_calls or [] %}{{ call | tojson }}{% endfor %}{% endfor %}"
    )
    user = {"role": "user", "content": "Hi"}
    assistant = {"role": "assistant", "content": "", "tool_calls": [call]}
    try:
        prompt = await _prompt(user, assistant, chat_template=template)
    except TemplateError as refusal:
        assert depth > 50 and "nested" in refusal.message
    else:
        assert prompt.count("{") >= depth or json.dumps(arguments)[1:-1] in prompt


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
        await _asked(service, modalities=["audio"])
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
    choices = await _collected(says("Hello"), n=2)
    assert [c.text for c in choices] == ["Hello"] * 2
    assert [c.ended for c in choices] == [Ended("stop", Usage(7, 0, 5))] * 2


async def test_what_the_format_needs_reaches_the_engine() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    (asked,) = await _asked(
        _reading(FakeFormat()),
        tools=[tool],
        tool_choice="required",
        stop_token_ids=[5],
        logprobs=True,
        top_logprobs=3,
    )
    assert asked.grammar and asked.logprobs == 3
    assert (asked.shown_tokens, asked.stop_tokens) == ((256,), (257, 5))
    assert asked.hidden == (("‹", "›"),)


async def test_a_plain_question_costs_no_grammar_and_no_scores() -> None:
    (asked,) = await _asked(_service())
    assert (asked.grammar, asked.logprobs) == ("", None)


TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "does f", "parameters": {"type": "object"}},
}
OTHER = {"type": "function", "function": {"name": "g", "strict": True}}
JSON_OBJECT = {"type": "json_object"}


async def test_tools_are_asked_for_in_the_formats_words() -> None:
    ask = await _ask(tools=[TOOL, OTHER], parallel_tool_calls=False)
    assert ask.tools == (
        Tool("f", {"type": "object"}, "does f"),
        Tool("g", {"type": "object", "properties": {}}, "", strict=True),
    )
    assert (ask.mode, ask.callable, ask.parallel) == ("auto", frozenset("fg"), False)
    assert ask.lenient


async def test_tools_that_must_not_be_called_are_not_shown() -> None:
    ask = await _ask(tools=[TOOL], tool_choice="none")
    assert (ask.tools, ask.mode) == ((), "none")


async def test_tools_that_may_not_be_called_now_stay_in_the_prompt() -> None:
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    ask = await _ask(tools=[TOOL, OTHER], tool_choice=choice)
    assert [tool.name for tool in ask.tools] == ["f", "g"]
    assert ask.callable == frozenset("g")


@pytest.mark.parametrize(("choice", "bound"), [(None, True), ("none", True), ("required", False)])
async def test_a_forced_call_leaves_no_text_to_bind(choice: object, bound: bool) -> None:
    ask = await _ask(tools=[TOOL], tool_choice=choice, response_format=JSON_OBJECT)
    assert bool(ask.body) is bound


async def test_a_wrong_schema_is_refused_even_where_it_would_bind_nothing() -> None:
    schema = {"$ref": "#/nowhere"}
    with pytest.raises(InvalidRequest) as refusal:
        await _ask(tools=[TOOL], tool_choice="required", json_schema=schema)
    assert refusal.value.param == "json_schema"


async def test_reasoning_is_asked_for_in_the_formats_words() -> None:
    ask = await _ask(
        reasoning_effort="high", thinking_budget_tokens=5, chat_template_kwargs={"custom": 1}
    )
    assert (ask.thinking, ask.effort, ask.reasoning_budget) == (True, "high", 5)
    assert ask.variables == {"custom": 1}


@pytest.mark.parametrize(
    ("body", "prefill", "opens"),
    [
        ({}, False, True),
        ({"add_generation_prompt": False}, False, False),
        (
            {
                "messages": [{"role": "assistant", "content": "So"}],
                "continue_final_message": True,
            },
            True,
            False,
        ),
    ],
)
async def test_the_answers_opening(body: dict[str, object], prefill: bool, opens: bool) -> None:
    ask = await _ask(**body)
    assert (ask.prefill, ask.add_generation_prompt) == (prefill, opens)


async def test_the_operator_turns_leniency_off() -> None:
    format = FakeFormat()
    service = ChatService(
        FakePool(FakeEngine()),
        Recorder(),
        max_choices=1,
        recommended={},
        lenient=False,
        format_of=lambda _: format,
    )
    await _asked(service, tools=[TOOL])
    assert format.ask.lenient is False


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": JSON_OBJECT}, "response_format"),
        ({"structured_outputs": {"json_object": True}}, "structured_outputs.json_object"),
        ({"tools": [TOOL]}, "tools"),
        ({"tools": [TOOL], "response_format": JSON_OBJECT}, "response_format"),
        (
            {"tools": [TOOL], "response_format": JSON_OBJECT, "tool_choice": "required"},
            "tools",
        ),
        ({"functions": [{"name": "f"}]}, "functions"),
    ],
    ids=str,
)
async def test_a_grammar_the_engine_refuses_is_named(body: dict[str, object], param: str) -> None:
    refused = InvalidRequest("too large", code="invalid_grammar")
    engine = FakeEngine(lambda _: [refused])
    with pytest.raises(InvalidRequest) as refusal:
        await _asked(_reading(FakeFormat(), engine), **body)
    assert (refusal.value.param, refusal.value.error_code) == (param, "invalid_grammar")


async def test_other_refusals_of_the_engine_are_as_they_are() -> None:
    engine = FakeEngine(lambda _: [InvalidRequest("no such token", param="logit_bias")])
    with pytest.raises(InvalidRequest) as refusal:
        await _asked(_reading(FakeFormat(), engine), response_format=JSON_OBJECT)
    assert refusal.value.param == "logit_bias"


async def test_a_wrong_schema_of_a_legacy_function_is_named_as_it_was_sent() -> None:
    format = FakeFormat()
    format.refusal = InvalidRequest("no", param="tools[0].function.parameters")
    with pytest.raises(InvalidRequest) as refusal:
        await _asked(_reading(format), functions=[{"name": "f"}])
    assert refusal.value.param == "functions[0].parameters"


async def test_an_answer_is_taken_apart() -> None:
    (choice,) = await _collected(says('‹hm›So: «f:{}»«g:{"a": 1}»'), tools=[TOOL, OTHER])
    assert (choice.reasoning, choice.text) == ("hm", "So: ")
    assert [(call.name, call.arguments) for call in choice.calls] == [
        ("f", "{}"),
        ("g", '{"a": 1}'),
    ]
    assert choice.ended is not None
    assert (choice.ended.reason, choice.ended.calls) == ("tool_calls", 2)


@pytest.mark.parametrize(
    ("text", "reason", "calls", "content"),
    [
        ("«f:{}»", "length", 1, ""),
        ("«f:{}»«g:{", "length", 1, ""),
        ("«f:{", "length", 0, ""),
        ("So «f", "length", 0, "So "),
        ("‹never ends", "length", 0, ""),
    ],
)
async def test_a_call_that_is_cut_off_is_no_call(
    text: str, reason: FinishReason, calls: int, content: str
) -> None:
    (choice,) = await _collected(says(text, reason), tools=[TOOL])
    assert choice.ended is not None and choice.ended.reason == reason
    assert (len(choice.calls), choice.text) == (calls, content)


async def test_who_sent_functions_gets_a_function_call() -> None:
    (choice,) = await _collected(says("«f:{}»"), functions=[{"name": "f"}])
    assert choice.ended is not None and choice.ended.reason == "function_call"
