"""Chat requests as they come over the wire, and how wrong ones are refused."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from server.api.errors import body_of, invalid_body
from server.core.errors import InvalidRequest
from server.schemas.chat import ChatRequest
from server.services.turns import turns_of

HI = [{"role": "user", "content": "Hi"}]


def parsed(**body: object) -> ChatRequest:
    return ChatRequest.model_validate_json(json.dumps({"messages": HI, **body}))


def check(request: ChatRequest) -> None:
    """Everything a request is checked for before its model's format is."""
    request.check_refused()
    request.check_together()
    request.sampling({}, 0)
    request.end_tokens(300)
    request.thinking()
    for i, function in enumerate(request.tool_use().functions):
        function.schema_of_arguments(request.tool_use().path.format(i))
    turns_of(request.messages)


def refusal(**body: object) -> tuple[str | None, str | None]:
    """The code and the param of the error a body is answered with."""
    try:
        check(parsed(**body))
    except ValidationError as error:
        found = invalid_body(error)
    except InvalidRequest as error:
        found = error
    else:
        pytest.fail("it was accepted")
    assert set(body_of(found)["error"]) == {"message", "type", "param", "code"}
    assert found.message
    return found.error_code, found.param
