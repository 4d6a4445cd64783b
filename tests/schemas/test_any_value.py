"""Whatever stands in a field, it is taken or refused by name: nothing else ever happens."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from server.api.errors import invalid_body
from server.core.errors import InvalidRequest
from server.schemas.chat import ChatRequest

from .requests import check, parsed

WORDS = (
    *("type", "function", "name", "tools", "mode", "allowed_tools", "auto", "none", "required"),
    *("any", "f", "custom", "json_schema", "schema", "json_object", "text", "regex", "choice"),
    *("grammar", "json", "enable_thinking", "thinking", "arguments", "content", "role"),
    *("assistant", "tool", "tool_calls", "parameters", "object"),
)
_NAMES = st.sampled_from(WORDS)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _NAMES
VALUES = st.recursive(
    _LEAVES | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)
TOOL = {"type": "function", "function": {"name": "f"}}


@settings(max_examples=600, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*ChatRequest.model_fields, *ChatRequest.refused]),
        VALUES | st.just([TOOL]),
        min_size=1,
        max_size=3,
    )
)
def test_any_value_is_taken_or_refused_by_name(body: dict[str, Any]) -> None:
    try:
        check(parsed(**body))
    except ValidationError as error:
        refusal = invalid_body(error)
    except InvalidRequest as error:
        refusal = error
    else:
        return
    assert refusal.message and refusal.error_code and refusal.param
    assert refusal.param.partition(".")[0].partition("[")[0] in body
