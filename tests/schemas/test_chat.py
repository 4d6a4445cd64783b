"""Chat on the wire: what a request may say, field by field."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from server.api.errors import invalid_body
from server.core.errors import UnsupportedParameter
from server.schemas.chat import ChatRequest
from server.schemas.sampling import MAX_STOPS

from .requests import check, parsed, refusal

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
OPTIONAL = {
    *(name for name in ChatRequest.model_fields if name != "messages"),
    *ChatRequest.refused,
    *("user", "metadata", "store", "service_tier", "prediction", "verbosity", "seed"),
}


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_null_is_absent(name: str) -> None:
    request, absent = parsed(**{name: None}), parsed()
    check(request)
    assert request.sampling({}, 0) == absent.sampling({}, 0)
    assert (request.tool_use(), request.structure()) == (absent.tool_use(), None)
    assert (request.thinking(), request.budget(), request.variables()) == (None, None, {})
    assert (request.token_limit(), request.shape()) == (absent.token_limit(), absent.shape())
    assert (request.stops(), request.include_usage) == ((), False)
    assert request.ignored_fields() == []


def test_what_is_left_open_has_openais_defaults() -> None:
    sampling = parsed().sampling({}, 0)
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 1.0, 0)
    assert sampling.seed is None
    assert parsed().token_limit() is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("temperature", v) for v in (0, 0.0, 2, 1.5)],
        *[("top_p", v) for v in (0, 1, 0.5)],
        *[("min_p", v) for v in (0, 1)],
        *[("top_k", v) for v in (-1, 0, 40)],
        *[(name, v) for name in ("frequency_penalty", "presence_penalty") for v in (-2, 0, 2)],
        *[(name, 1.1) for name in ("repeat_penalty", "repetition_penalty")],
        *[("seed", v) for v in (-(2**63), 2**63 - 1, -1, 0)],
        *[("max_tokens", v) for v in (1, -1, 100_000)],
        *[("stop", v) for v in ("x", [], ["a"] * 12, ["", "x"])],
        *[("logit_bias", v) for v in ({}, {"50256": -100}, {"1": 0.5})],
        *[("stream_options", v) for v in ({}, {"include_usage": True}, {"include_obfuscation": 0})],
        ("n", 1),
        ("tools", []),
        ("tool_choice", "none"),
        ("tool_choice", "auto"),
        ("response_format", {"type": "text"}),
        *[("logprobs", v) for v in (False, True)],
        *[("typical_p", v) for v in (0, 1, 0.5)],
        *[("mirostat", v) for v in (0, 1, 2)],
        *[("min_tokens", v) for v in (-1, 0, 5)],
        *[("stop_token_ids", v) for v in ([], [0, 299])],
        *[("reasoning_effort", v) for v in EFFORTS],
        *[("thinking_budget_tokens", v) for v in (-1, 0, 2**63)],
        ("modalities", ["text"]),
    ],
)
def test_values_in_range_are_accepted(field: str, value: object) -> None:
    check(parsed(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("temperature", 2.1, "decimal_above_max_value"),
        ("temperature", -0.1, "decimal_below_min_value"),
        ("temperature", "0.5", "invalid_type"),
        ("temperature", True, "invalid_type"),
        ("top_p", 1.1, "decimal_above_max_value"),
        ("top_p", -1, "decimal_below_min_value"),
        ("min_p", 2, "decimal_above_max_value"),
        ("top_k", -2, "integer_below_min_value"),
        ("top_k", 1.5, "invalid_type"),
        ("frequency_penalty", 3, "decimal_above_max_value"),
        ("presence_penalty", -2.5, "decimal_below_min_value"),
        ("repeat_penalty", 0, "decimal_below_min_value"),
        ("seed", 2**63, "integer_above_max_value"),
        ("seed", 1.5, "invalid_type"),
        ("n", 0, "integer_below_min_value"),
        ("max_tokens", 0, "integer_below_min_value"),
        ("max_tokens", "7", "invalid_type"),
        ("max_tokens", True, "invalid_type"),
        ("max_completion_tokens", -2, "integer_below_min_value"),
        ("stop", 5, "invalid_type"),
        ("stop", ["x"] * (MAX_STOPS + 1), "array_above_max_length"),
        ("top_logprobs", 21, "integer_above_max_value"),
        ("logprobs", 5, "invalid_type"),
        ("typical_p", 1.5, "decimal_above_max_value"),
        ("mirostat", 3, "integer_above_max_value"),
        ("mirostat", True, "invalid_type"),
        ("min_tokens", -2, "integer_below_min_value"),
        ("stop_token_ids", [-1], "integer_below_min_value"),
        ("stop_token_ids", ["x"], "invalid_type"),
        ("reasoning_effort", "hard", "invalid_value"),
        ("thinking_budget_tokens", -2, "integer_below_min_value"),
        ("chat_template_kwargs", {"enable_thinking": "false"}, "invalid_type"),
        ("chat_template_kwargs", [1], "invalid_type"),
        ("enable_thinking", "false", "invalid_type"),
        ("logit_bias", {"x": 1}, "invalid_value"),
        ("logit_bias", {"-5": 1}, "invalid_value"),
        ("logit_bias", {"٣": 1}, "invalid_value"),
        ("logit_bias", {"1": 101}, "decimal_above_max_value"),
        ("logit_bias", [1], "invalid_type"),
        ("stream", "true", "invalid_type"),
        ("stream", 1, "invalid_type"),
        ("stream_options", {"include_usage": "yes"}, "invalid_type"),
        ("model", 5, "invalid_type"),
        ("temperature", float("nan"), "invalid_value"),
        ("logit_bias", {"1": float("inf")}, "invalid_value"),
        ("messages", [], "empty_array"),
        ("messages", "Hi", "invalid_type"),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: object, code: str) -> None:
    found, param = refusal(**{field: value})
    assert found == code
    assert param is not None and re.match(rf"{field}($|[.\[])", param)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ValidationError) as refusal:
        ChatRequest.model_validate_json("{}")
    error = invalid_body(refusal.value)
    assert (error.error_code, error.param) == ("missing_required_parameter", "messages")


@pytest.mark.parametrize("body", ["", "{", "[]", "42", "null", '"x"', '{"a":"\\ud800"}'])
def test_what_is_no_json_object_is_refused_without_a_field(body: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        ChatRequest.model_validate_json(body)
    error = invalid_body(refusal.value)
    assert (error.error_code, error.param) == (None, None)
    assert "JSON" in error.message


@pytest.mark.parametrize("bad", [b'{"messages": "\xff"}', b"\xfe\xff"])
def test_what_is_no_utf8_is_refused(bad: bytes) -> None:
    with pytest.raises(ValidationError) as refusal:
        ChatRequest.model_validate_json(bad)
    assert invalid_body(refusal.value).param is None


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": -1}, 5),
        ({"max_tokens": -1}, None),
    ],
)
def test_the_newer_limit_wins(body: dict[str, object], limit: int | None) -> None:
    assert parsed(**body).token_limit() == limit


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "top_k"])
@pytest.mark.parametrize("value", [2**31, 2**63, 10**30])
def test_limits_beyond_any_context_are_no_limits(field: str, value: int) -> None:
    """Clients send such to say "as much as there is"; it must not overflow on its way."""
    request = parsed(**{field: value})
    assert (request.token_limit() or 1) < 2**31
    assert request.sampling({}, 0).top_k < 2**31


@pytest.mark.parametrize(
    ("stop", "stops"),
    [("x", ("x",)), ([], ()), (["a", "", "b"], ("a", "b")), ("", ()), (None, ())],
)
def test_stop_has_many_forms(stop: object, stops: tuple[str, ...]) -> None:
    assert parsed(stop=stop).stops() == stops


@pytest.mark.parametrize("value", [["text", "audio"], ["audio"]])
def test_what_is_not_served_is_refused_by_name(value: object) -> None:
    assert refusal(modalities=value) == ("unsupported_parameter", "modalities")


def test_what_is_ignored_is_listed_and_nothing_else_is() -> None:
    request = parsed(
        user="u", cache_prompt=True, metadata={}, store=None, tools=[], temperature=1, audio={}
    )
    assert request.ignored_fields() == ["audio", "cache_prompt", "metadata", "user"]
    with pytest.raises(UnsupportedParameter):
        parsed(modalities=["audio"]).check_refused()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"top_logprobs": 1, "logprobs": False}, "top_logprobs"),
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
        ({"continue_final_message": True}, "continue_final_message"),
        (
            {
                "messages": [{"role": "assistant", "content": "So"}],
                "continue_final_message": True,
                "add_generation_prompt": True,
            },
            "continue_final_message",
        ),
        ({"stop_token_ids": [5, 300]}, "stop_token_ids[1]"),
    ],
    ids=str,
)
def test_what_is_right_alone_may_be_wrong_together(body: dict[str, object], param: str) -> None:
    assert refusal(**body) == ("invalid_value", param)


@pytest.mark.parametrize(
    ("body", "scores"),
    [
        ({}, None),
        ({"logprobs": False, "top_logprobs": 0}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
    ids=str,
)
def test_scores_are_as_many_as_asked_for(body: dict[str, object], scores: int | None) -> None:
    assert parsed(**body).scores() == scores


def test_what_other_servers_sample_by_reaches_the_engine() -> None:
    sampling = parsed(
        typical_p=0.5, mirostat=2, mirostat_tau=4, mirostat_eta=0.2, min_tokens=3, ignore_eos=True
    ).sampling({}, 0)
    assert (sampling.typical_p, sampling.mirostat) == (0.5, 2)
    assert (sampling.mirostat_tau, sampling.mirostat_eta) == (4.0, 0.2)
    assert (sampling.min_tokens, sampling.ignore_end) == (3, True)


@pytest.mark.parametrize(
    ("seed", "choice", "expected"),
    [(None, 1, None), (-1, 1, None), (7, 2, 9), (-2, 0, 2**32 - 2), (2**32 - 1, 1, 0)],
)
def test_any_seed_fits_in_32_bits(seed: int | None, choice: int, expected: int | None) -> None:
    assert parsed(seed=seed).sampling({}, choice).seed == expected


def test_a_list_of_nonsense_is_given_up_at_its_first_item() -> None:
    with pytest.raises(ValidationError) as refusal:
        ChatRequest.model_validate_json('{"messages": [' + "1," * 5000 + "1]}")
    assert refusal.value.error_count() == 1
